package jsonschema

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

func TestASchemaSaysWhatIsWritten(t *testing.T) {
	type part struct {
		Kind string `json:"kind"`
	}
	type whole struct {
		part
		When   time.Time         `json:"when,omitzero"`
		Parts  []part            `json:"parts"`
		Count  *int64            `json:"count,omitempty"`
		Ratio  float64           `json:"ratio"`
		Sum    []byte            `json:"sum"`
		More   map[string]string `json:"more,omitempty"`
		From   netip.Addr        `json:"from"`
		Any    any               `json:"any"`
		Secret string            `json:"-"`
		hidden bool
	}
	_ = whole{}.hidden
	got, err := json.Marshal(Of(whole{}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"object","properties":{` +
		`"any":{},"count":{"type":"integer"},"from":{"type":"string"},"kind":{"type":"string"},` +
		`"more":{"type":"object","additionalProperties":{"type":"string"}},` +
		`"parts":{"type":"array",` +
		`"items":{"type":"object","properties":{"kind":{"type":"string"}},"required":["kind"]}},` +
		`"ratio":{"type":"number"},"sum":{"type":"string","contentEncoding":"base64"},` +
		`"when":{"type":"string","format":"date-time"}},` +
		`"required":["kind","parts","ratio","sum","from","any"]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
