package front

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// passive are the handlers that neither answer a request nor pass it on by
// themselves. All others are checked, also those that we do not know.
var passive = map[string]bool{
	"vars": true, "map": true, "headers": true, "encode": true, "request_body": true, "tracing": true,
	"log_append": true, "rewrite": true, "subroute": true, "invoke": true, "postern_checked": true,
	"postern_guard": true, "postern_entry": true, "intercept": true, "timeouts": true,
}

// checkRoute wraps the handlers of a route.
func checkRoute(r *caddyhttp.Route) error {
	for i, raw := range r.HandlersRaw {
		checked, err := checkHandler(raw)
		if err != nil {
			return err
		}
		r.HandlersRaw[i] = checked
	}
	return nil
}

// checkHandler wraps a handler unless it is passive, and those inside it.
func checkHandler(raw json.RawMessage) (json.RawMessage, error) {
	name := handlerName(raw)
	inner, err := checkJSON(raw)
	if err != nil || passive[name] {
		return inner, err
	}
	if name == "postern_require" {
		return nil, fmt.Errorf("require stands at the top of a site")
	}
	proxy := name != "file_server" && name != "static_response" && name != "error"
	if inner, err = withFastCGI(inner); err != nil {
		return nil, err
	}
	c := Checked{HandlerRaw: inner, Proxy: proxy}
	switch name {
	case "file_server":
		c.IndexRaw, err = indexMatcher(raw)
	case "reverse_proxy":
		var proxy struct {
			Rewrite *rewrite.Rewrite `json:"rewrite"`
		}
		err = json.Unmarshal(raw, &proxy)
		c.Rewrite = proxy.Rewrite
	}
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(c, "handler", "postern_checked", nil), nil
}

// indexMatcher returns a matcher that finds the index page which a file server
// shows for a directory.
func indexMatcher(raw json.RawMessage) (json.RawMessage, error) {
	var server fileserver.FileServer
	if err := json.Unmarshal(raw, &server); err != nil {
		return nil, err
	}
	names := server.IndexNames
	if names == nil {
		names = []string{"index.html", "index.txt"} // Caddy's own
	}
	if len(names) == 0 {
		return nil, nil
	}
	m := fileserver.MatchFile{Root: server.Root, FileSystem: server.FileSystem}
	for _, n := range names {
		m.TryFiles = append(m.TryFiles, "{http.request.uri.path}/"+n)
	}
	return caddyconfig.JSONModuleObject(m, "matcher", "file", nil), nil
}

// checkJSON wraps the handlers in all routes anywhere inside a value: those of
// subroutes, of answers that a proxy handles, and of modules that we do not
// know.
func checkJSON(raw json.RawMessage) (json.RawMessage, error) {
	trimmed := strings.TrimSpace(string(raw))
	switch {
	case strings.HasPrefix(trimmed, "{"):
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, err
		}
		for key, value := range object {
			checked, err := checkMember(key, value)
			if err != nil {
				return nil, err
			}
			object[key] = checked
		}
		return json.Marshal(object)
	case strings.HasPrefix(trimmed, "["):
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		for i, value := range list {
			checked, err := checkJSON(value)
			if err != nil {
				return nil, err
			}
			list[i] = checked
		}
		return json.Marshal(list)
	}
	return raw, nil
}

func checkMember(key string, value json.RawMessage) (json.RawMessage, error) {
	var handlers []json.RawMessage
	if key != "handle" || json.Unmarshal(value, &handlers) != nil {
		return checkJSON(value)
	}
	for i, h := range handlers {
		checked, err := checkHandler(h)
		if err != nil {
			return nil, err
		}
		handlers[i] = checked
	}
	return json.Marshal(handlers)
}

// withFastCGI gives a proxy that speaks FastCGI our transport.
func withFastCGI(raw json.RawMessage) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil || object["transport"] == nil {
		return raw, nil
	}
	var transport map[string]json.RawMessage
	if err := json.Unmarshal(object["transport"], &transport); err != nil {
		return nil, err
	}
	if string(transport["protocol"]) != `"fastcgi"` {
		return raw, nil
	}
	transport["protocol"] = json.RawMessage(`"postern_fastcgi"`)
	var err error
	if object["transport"], err = json.Marshal(transport); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// indexNames collects the names of index pages in a handler and those inside it.
func indexNames(raw json.RawMessage) (names []string) {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				if list, ok := value.([]any); ok && (key == "index_names" || key == "try_files") {
					for _, n := range list {
						if s, ok := n.(string); ok {
							names = append(names, s[strings.LastIndexByte(s, '/')+1:])
						}
					}
				}
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	walk(v)
	slices.Sort(names)
	return slices.Compact(names)
}
