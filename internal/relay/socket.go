package relay

// Socket is the socket in a server's state directory that receives the events of its host's
// agent, and requests to load the configuration again.
const Socket = "agent.sock"
