// Package jsonschema describes what encoding/json writes for a Go type, as JSON
// Schema (draft 2020-12).
package jsonschema

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// Schema is a schema, to be written as JSON. Only what is used here has a field.
type Schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type,omitempty"`
	Format      string             `json:"format,omitempty"`
	Encoding    string             `json:"contentEncoding,omitempty"`
	Items       *Schema            `json:"items,omitempty"`
	Properties  map[string]*Schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"` // in the order of the fields
	Values      *Schema            `json:"additionalProperties,omitempty"`
	Defs        map[string]*Schema `json:"$defs,omitempty"`
}

var (
	timeType = reflect.TypeFor[time.Time]()
	jsonType = reflect.TypeFor[json.Marshaler]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

// Of returns the schema of a value's type. A type that writes its own JSON may be
// anything. The type must not contain itself.
func Of(v any) *Schema { return of(reflect.TypeOf(v)) }

// Document returns a schema that has definitions alone: one of each value's type.
func Document(title, description string, values map[string]any) *Schema {
	s := &Schema{
		Schema: "https://json-schema.org/draft/2020-12/schema", Title: title, Description: description,
		Defs: map[string]*Schema{},
	}
	for name, v := range values {
		s.Defs[name] = Of(v)
	}
	return s
}

func of(t reflect.Type) *Schema {
	switch {
	case t == timeType:
		return &Schema{Type: "string", Format: "date-time"}
	case t.Implements(jsonType):
		return &Schema{}
	case t.Implements(textType):
		return &Schema{Type: "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return of(t.Elem())
	case reflect.Bool:
		return &Schema{Type: "boolean"}
	case reflect.String:
		return &Schema{Type: "string"}
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
			return &Schema{Type: "string", Encoding: "base64"}
		}
		return &Schema{Type: "array", Items: of(t.Elem())}
	case reflect.Map:
		return &Schema{Type: "object", Values: of(t.Elem())}
	case reflect.Struct:
		s := &Schema{Type: "object", Properties: map[string]*Schema{}}
		s.fields(t)
		return s
	case reflect.Interface:
		return &Schema{}
	}
	return &Schema{Type: "integer"}
}

// fields adds the fields of a struct, those of embedded ones, too.
func (s *Schema) fields(t reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "":
			s.fields(f.Type)
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		s.Properties[name] = of(f.Type)
		if !strings.Contains(options, "omit") {
			s.Required = append(s.Required, name)
		}
	}
}
