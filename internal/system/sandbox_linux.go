package system

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sandbox runs programs with a directory of this host as their root, which may be /
// itself. They see its files, and those that MakeDir and Write add for them
// alone. All is read-only but what was added, and no program has a capability. Below
// another root than / it has no network, and sees no process but its own. A sandbox
// needs root (CAP_SYS_ADMIN). It is safe for concurrent use.
type Sandbox struct {
	root string
	work chan func() // run by the one thread that is in the mount namespace
	done chan struct{}
}

// NewSandbox returns a sandbox whose root is a directory.
func NewSandbox(root string) (*Sandbox, error) {
	s := &Sandbox{root: root, work: make(chan func()), done: make(chan struct{})}
	entered := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := s.enter()
		entered <- err
		if err != nil {
			return
		}
		for f := range s.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("namespaces for programs below %s: %w", root, err)
	}
	return s, nil
}

// Close ends the sandbox, and with it all that was added.
func (s *Sandbox) Close() {
	close(s.work)
	<-s.done
}

// in runs f on the sandbox's thread.
func (s *Sandbox) in(f func() error) error {
	result := make(chan error)
	s.work <- func() { result <- f() }
	return <-result
}

// enter moves the thread into a mount namespace in which root is read-only, and
// leaves no capability to what it starts.
func (s *Sandbox) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if s.root != "/" {
		if err := unix.Mount(s.root, s.root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, s.root, unix.AT_RECURSIVE, &attr); err != nil {
		return err
	}
	if s.root != "/" {
		if err := s.nullDevice(); err != nil {
			return err
		}
	}
	return dropCapabilities()
}

// nullDevice gives the root a /dev with null in it, and nothing else.
func (s *Sandbox) nullDevice() error {
	if err := s.cover("/"); err != nil { // there may be no /dev
		return err
	}
	if err := s.makeDir("/dev"); err != nil {
		return err
	}
	if err := s.mount("tmpfs", "/dev", "tmpfs", 0); err != nil {
		return err
	}
	if err := s.create("/dev/null", nil); err != nil {
		return err
	}
	return s.mount("/dev/null", "/dev/null", "", unix.MS_BIND)
}

// dropCapabilities takes from what the thread starts all that root may do beyond
// what its files' owner may.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err // EINVAL: the kernel does not know it
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&header, &data[0])
}

// at opens a name below the root, for what f does with the file of /proc that
// stands for it.
func (s *Sandbox) at(name string, f func(file string) error) error {
	file, err := openInRoot(s.root, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(fmt.Sprintf("/proc/thread-self/fd/%d", file.Fd()))
}

func (s *Sandbox) mount(source, target, kind string, flags uintptr) error {
	return s.at(target, func(file string) error { return unix.Mount(source, file, kind, flags, "") })
}

// create makes a file in a directory that can be written to.
func (s *Sandbox) create(name string, content []byte) error {
	return s.at(path.Dir(name), func(dir string) error {
		return os.WriteFile(path.Join(dir, path.Base(name)), content, 0o600)
	})
}

// MakeDir makes a directory, which only programs in the sandbox see.
func (s *Sandbox) MakeDir(name string) error {
	return s.in(func() error { return s.makeDir(path.Clean(name)) })
}

func (s *Sandbox) makeDir(name string) error {
	if st, err := StatInRoot(s.root, name); err == nil && st.IsDir() {
		return nil
	}
	parent := path.Dir(name)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	mkdir := func(dir string) error { return os.Mkdir(path.Join(dir, path.Base(name)), 0o755) }
	err := s.at(parent, mkdir)
	if errors.Is(err, unix.EROFS) && parent != "/" {
		if err = s.cover(parent); err == nil {
			err = s.at(parent, mkdir)
		}
	}
	return err
}

// cover puts over a directory one that can be written to, with the same directories
// and symbolic links in it, and no files.
func (s *Sandbox) cover(name string) error {
	dir, err := openInRoot(s.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	if err := s.mount("tmpfs", name, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV); err != nil {
		return err
	}
	for _, e := range entries {
		old := fmt.Sprintf("/proc/thread-self/fd/%d/%s", dir.Fd(), e.Name())
		err := s.at(name, func(cover string) error { return carry(old, path.Join(cover, e.Name()), e.Type()) })
		if err != nil {
			return err
		}
	}
	return nil
}

// carry makes what is at old be at inside, too, if it is a directory or a link.
func carry(old, inside string, kind fs.FileMode) error {
	switch kind {
	case fs.ModeDir:
		if err := os.Mkdir(inside, 0o755); err != nil {
			return err
		}
		return unix.Mount(old, inside, "", unix.MS_BIND|unix.MS_REC, "")
	case fs.ModeSymlink:
		target, err := os.Readlink(old)
		if err != nil {
			return err
		}
		return os.Symlink(target, inside)
	}
	return nil
}

// scratch is where the content of files that others are covered with is kept.
const scratch = "/run/postern-sandbox"

// Write makes a file, or covers the one that is there.
func (s *Sandbox) Write(name string, content []byte) error {
	return s.in(func() error {
		_, err := StatInRoot(s.root, name)
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.makeDir(path.Dir(name)); err != nil {
				return err
			}
			if err = s.create(name, content); !errors.Is(err, unix.EROFS) {
				return err
			}
			if err = s.cover(path.Dir(name)); err == nil {
				err = s.create(name, content)
			}
			return err
		}
		if err == nil {
			err = s.makeDir(scratch)
		}
		if err != nil {
			return err
		}
		source := path.Join(scratch, path.Base(name))
		if err := s.create(source, content); err != nil {
			return err
		}
		return s.at(source, func(from string) error { return s.mount(from, name, "", unix.MS_BIND) })
	})
}

// outputMax bounds what is kept of what a program prints, bytes.
const outputMax = 4 << 20

// Output runs a program, whose absolute name is the first argument, and returns what
// it prints. It is ended with ctx, or if it prints more than 4 MB.
func (s *Sandbox) Output(ctx context.Context, argv ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, time.Second
	out, complaint := &bounded{stop: cancel}, &bounded{stop: cancel}
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if s.root != "/" {
		cmd.SysProcAttr.Chroot = s.root
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if err = s.in(cmd.Start); err == nil {
		err = cmd.Wait()
	}
	return out.kept, complaint.kept, err
}

// bounded keeps what is written to it, and stops the writer past outputMax.
type bounded struct {
	kept []byte
	stop func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > outputMax {
		b.stop()
		return 0, errors.New("too much is printed")
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}
