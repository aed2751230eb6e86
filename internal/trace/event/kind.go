package event

import (
	"slices"
	"strings"
)

// KindOf returns the kind of a probe, from its name without the provider, or
// Unknown.
func KindOf(name string) Kind {
	if rest, ok := strings.CutPrefix(name, "event_poll_"); ok {
		if rest == "run" {
			return PollRun
		}
		name = "event_glib_" + rest
	}
	return kinds[name]
}

var kinds = map[string]Kind{
	"rpc_client_msg_tx_queue":        ClientTx,
	"rpc_client_msg_rx":              ClientRx,
	"rpc_server_client_msg_rx":       ServerRx,
	"rpc_server_client_msg_tx_queue": ServerTx,

	"rpc_client_new":            ClientNew,
	"rpc_client_dispose":        ClientFree,
	"rpc_client_free":           ClientFree,
	"rpc_server_client_new":     ServerNew,
	"rpc_server_client_dispose": ServerFree,
	"rpc_server_client_free":    ServerFree,
	"rpc_socket_new":            SocketNew,
	"rpc_socket_dispose":        SocketFree,
	"rpc_socket_free":           SocketFree,
	"rpc_socket_send_fd":        SocketSendFD,
	"rpc_socket_recv_fd":        SocketRecvFD,

	"rpc_server_client_auth_allow": AuthAllow,
	"rpc_server_client_auth_deny":  AuthDeny,
	"rpc_server_client_auth_fail":  AuthFail,

	"rpc_tls_context_new":            TLSContextNew,
	"rpc_tls_context_dispose":        TLSContextFree,
	"rpc_tls_context_session_allow":  TLSAllow,
	"rpc_tls_context_session_deny":   TLSDeny,
	"rpc_tls_context_session_fail":   TLSFail,
	"rpc_tls_session_new":            TLSNew,
	"rpc_tls_session_dispose":        TLSFree,
	"rpc_tls_session_handshake_pass": TLSHandshakePass,
	"rpc_tls_session_handshake_fail": TLSHandshakeFail,

	"rpc_keepalive_new":      KeepaliveNew,
	"rpc_keepalive_dispose":  KeepaliveFree,
	"rpc_keepalive_start":    KeepaliveStart,
	"rpc_keepalive_stop":     KeepaliveStop,
	"rpc_keepalive_send":     KeepaliveSend,
	"rpc_keepalive_received": KeepaliveRecv,
	"rpc_keepalive_timeout":  KeepaliveTimeout,

	"event_glib_add_handle":          HandleAdd,
	"event_glib_update_handle":       HandleUpdate,
	"event_glib_remove_handle":       HandleRemove,
	"event_glib_remove_handle_idle":  HandleIdle,
	"event_glib_purge_handle":        HandleIdle,
	"event_glib_dispatch_handle":     HandleDispatch,
	"event_glib_add_timeout":         TimeoutAdd,
	"event_glib_update_timeout":      TimeoutUpdate,
	"event_glib_remove_timeout":      TimeoutRemove,
	"event_glib_remove_timeout_idle": TimeoutIdle,
	"event_glib_purge_timeout":       TimeoutIdle,
	"event_glib_dispatch_timeout":    TimeoutDispatch,

	"qemu_monitor_new":        MonitorNew,
	"qemu_monitor_ref":        MonitorRef,
	"qemu_monitor_unref":      MonitorUnref,
	"qemu_monitor_close":      MonitorClose,
	"qemu_monitor_send_msg":   MonitorSend,
	"qemu_monitor_recv_reply": MonitorReply,
	"qemu_monitor_recv_event": MonitorEvent,
	"qemu_monitor_io_process": MonitorIO,
	"qemu_monitor_io_read":    MonitorRead,
	"qemu_monitor_io_write":   MonitorWrite,
	"qemu_monitor_io_send_fd": MonitorSendFD,

	"object_new":     ObjectNew,
	"object_ref":     ObjectRef,
	"object_unref":   ObjectUnref,
	"object_dispose": ObjectDispose,
}

// never are names that libvirt's tapset has, and no build.
var never = []string{
	"rpc_tls_session_handshake_pass", "rpc_tls_session_handshake_fail",
	"qemu_monitor_io_read", "qemu_monitor_ref", "qemu_monitor_unref",
}

// Names returns the names of the probes that builds of libvirt have since 7.0,
// sorted.
func Names() []string {
	var out []string
	for name := range kinds {
		if !strings.HasSuffix(name, "_free") && !strings.Contains(name, "_purge_") && !slices.Contains(never, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
