package event

// Sink takes events. Its methods are called from one goroutine.
type Sink interface {
	// Event takes one event, which stands until Event returns.
	Event(*Event) error
	// Idle is called when nothing more is at hand: a good time to flush.
	Idle() error
}
