package apache

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxEntries bounds how many files are looked at for .htaccess files.
const maxEntries = 200_000

// htaccess reads the .htaccess files that Apache would, as they are now, and
// makes each a <Directory> section of the site.
func (c *converter) htaccess(s *site, p *parser) {
	names := s.accessFiles
	if len(names) == 0 {
		names = []string{".htaccess"}
	}
	var found []*Directive
	for _, root := range s.roots() {
		by := s.overrides(c, path.Clean(root.dir), true)
		if by == nil || root.script {
			continue
		}
		n := 0
		err := fs.WalkDir(c.fsys, fsName(root.dir), func(name string, e fs.DirEntry, err error) error {
			if n++; err == nil && n > maxEntries {
				err = fs.ErrInvalid
			}
			if err != nil {
				return err
			}
			dir := path.Join("/", path.Dir(name))
			if by := s.overrides(c, dir, false); by != nil && slices.Contains(names, e.Name()) && !e.IsDir() {
				found = append(found, c.accessFile(p, "/"+name, dir))
			}
			return nil
		})
		if err != nil {
			c.notes.add(Lost, by, "the .htaccess files of %s can't all be read here: what they say is left out",
				root.dir)
			continue
		}
		c.notes.add(Info, by, ".htaccess files count as they are now; Postern does not read them again")
	}
	for _, d := range found {
		s.sections = append(s.sections, d)
		c.sectionSettings(s, d)
	}
}

// accessFile reads one .htaccess file; what can't be read closes its
// directory.
func (c *converter) accessFile(p *parser, name, dir string) *Directive {
	d := &Directive{Name: "Directory", Args: []string{dir}, Raw: dir, File: name, Line: 1, Section: true}
	list, err := p.parseFile(name, 0)
	if err != nil {
		c.notes.add(Closed, d, "can't be read: %v", err)
		list = []*Directive{denied(d)}
	}
	d.Children = list
	return d
}

// overrides returns the AllowOverride line by which .htaccess files count in a
// directory, or, if asked for, in one below it; nil if they don't.
func (s *site) overrides(c *converter, dir string, below bool) *Directive {
	var best *Directive
	length := -1
	for _, d := range s.sections {
		for _, k := range d.Children {
			if !k.is("AllowOverride") {
				continue
			}
			on := !strings.EqualFold(k.arg(0), "none")
			p := path.Clean(c.path(d.arg(0)))
			plain := d.is("Directory") && !strings.ContainsAny(d.arg(0), "*?[~")
			switch {
			case !plain && on, below && on && strings.HasPrefix(p, dir+"/"):
				return k
			case plain && len(p) > length && (p == dir || p == "/" || strings.HasPrefix(dir, p+"/")):
				best, length = k, len(p)
			}
		}
	}
	if best == nil || strings.EqualFold(best.arg(0), "none") {
		return nil
	}
	return best
}
