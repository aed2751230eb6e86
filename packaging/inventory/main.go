// Command inventory writes what a program of this module is built of: a list of the modules
// as CycloneDX 1.6 (sbom.cdx.json), with the SPDX identifiers of their licences, and the
// licences themselves (LICENSES).
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: inventory PROGRAM VERSION DATE DIRECTORY")
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

// write writes both files of a program. The date is as in RFC 3339.
func write(program, version, date, dir string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	env, err := exec.Command("go", "env", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		return err
	}
	cache, root, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	_, own, err := licences(".") // the module's directory
	if err != nil {
		return err
	}
	list := bill{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{date, component{
			Type: "application", Name: filepath.Base(info.Path), Version: version,
			Ref: "pkg:golang/" + info.Main.Path + "@" + version, Licences: own,
		}},
	}
	sum := sha256.Sum256(data)
	list.Metadata.Component.Hashes = []hash{{"SHA-256", hex.EncodeToString(sum[:])}}
	list.Serial = fmt.Sprintf("urn:uuid:%x-%x-5%03x-%x-%x", sum[:4], sum[4:6], uint16(sum[6]&15)<<8|uint16(sum[7]),
		[]byte{sum[8]&63 | 128, sum[9]}, sum[10:16])
	var texts bytes.Buffer
	for _, m := range append([]*debug.Module{{Path: "std", Version: info.GoVersion}}, info.Deps...) {
		c, text, err := describe(m, cache, root)
		if err != nil {
			return err
		}
		if c.Licences == nil { // it stands in for a module
			c.Licences = own
		}
		list.Components = append(list.Components, c)
		texts.Write(text)
	}
	sbom, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sbom.cdx.json"), append(sbom, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "LICENSES"), texts.Bytes(), 0o644)
}

// describe returns a module's entry, and its licences under its name.
func describe(m *debug.Module, cache, root string) (component, []byte, error) {
	name, at := m.Path+" "+m.Version, ""
	switch {
	case m.Path == "std":
		at = root
	case m.Replace != nil && strings.HasPrefix(m.Replace.Path, "./"):
		// Ours, in place of the module of that name.
		return component{Type: "library", Name: m.Path, Version: "replaced", Ref: "here:" + m.Path}, nil, nil
	default:
		if m.Replace != nil {
			m = m.Replace
		}
		path, err := module.EscapePath(m.Path)
		if err != nil {
			return component{}, nil, err
		}
		version, err := module.EscapeVersion(m.Version)
		if err != nil {
			return component{}, nil, err
		}
		at = filepath.Join(cache, path+"@"+version)
	}
	text, ids, err := licences(at)
	if err != nil {
		return component{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	line, purl := strings.Repeat("=", len(name)), "pkg:golang/"+m.Path+"@"+m.Version
	c := component{Type: "library", Name: m.Path, Version: m.Version, Ref: purl, PURL: purl, Licences: ids}
	return c, fmt.Appendf(nil, "%s\n%s\n%s\n\n%s\n", line, name, line, text), nil
}

// licenceName matches the files that say under which terms a module may be used.
var licenceName = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying|^notice|^patents`)

// licences returns the licences in a module's directory and which they are; an error if
// there is none, or none that is known.
func licences(dir string) (all []byte, ids []licence, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		if f.IsDir() || !licenceName.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, nil, err
		}
		for _, id := range identify(string(text)) {
			if l := (licence{licenceID{id}}); !slices.Contains(ids, l) {
				ids = append(ids, l)
			}
		}
		all = append(append(all, bytes.TrimSpace(text)...), "\n\n"...)
	}
	if len(ids) == 0 {
		return nil, nil, fmt.Errorf("%s has no licence that packaging/inventory knows", dir)
	}
	return all, ids, nil
}

// bill is a bill of materials (CycloneDX 1.6, ECMA-424).
type bill struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Serial     string      `json:"serialNumber"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	PURL    string `json:"purl,omitempty"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Hashes  []hash `json:"hashes,omitempty"`

	Licences []licence `json:"licenses,omitempty"`
}

type licence struct {
	Licence licenceID `json:"license"`
}

type licenceID struct {
	ID string `json:"id"` // of SPDX
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}
