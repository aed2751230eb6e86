package export

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
)

// format writes an entry as one line, without its end.
type format func(ctx context.Context, e postern.Event) ([]byte, error)

// formats are all formats. Entries that name no host were seen on the host given.
var formats = map[string]func(src timeline.Source, host string) format{
	"json": nativeJSON, "ecs": ecs, "ocsf": ocsf, "sentence": sentences,
}

// microseconds is how times are written, of UTC.
const microseconds = "2006-01-02T15:04:05.000000Z"

// formatOf returns the format of a name; "" is JSON.
func formatOf(name string, src timeline.Source) (format, error) {
	of, ok := formats[cmp.Or(name, "json")]
	if !ok {
		return nil, postern.Errorf(postern.Invalid, "there is no format %q", name).
			WithHint("the formats are %s", strings.Join(slices.Sorted(maps.Keys(formats)), ", "))
	}
	host, err := system.HostName("")
	if err != nil {
		return nil, err
	}
	return of(src, host), nil
}

// mediaOf returns the media type of lines in a format.
func mediaOf(name string) string {
	if name == "sentence" {
		return "text/plain; charset=utf-8"
	}
	return "application/x-ndjson"
}

func nativeJSON(timeline.Source, string) format {
	return func(_ context.Context, e postern.Event) ([]byte, error) { return json.Marshal(e) }
}

// sentences returns the format of index, time and sentence, as lists have it.
func sentences(src timeline.Source, _ string) format {
	return func(ctx context.Context, e postern.Event) ([]byte, error) {
		joined, err := timeline.Join(ctx, src, e)
		if err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, "%d %s %s", e.Index, e.Time.UTC().Format(microseconds),
			oneLine(timeline.Sentence(e, joined))), nil
	}
}

// oneLine replaces what would end a line, or control a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
