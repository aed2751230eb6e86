package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/webhook"
)

// post posts a message as JSON.
func post(ctx context.Context, m Message, now time.Time) error {
	body, err := json.Marshal(m.public())
	if err != nil {
		return err
	}
	return m.To.Webhook.Post(ctx, webhook.Message{ID: m.ID, Type: "application/json", Body: body}, now)
}

// public is what webhooks and commands get of a message.
type public struct {
	ID    string        `json:"id"`
	Alert string        `json:"alert"`
	Text  string        `json:"text"`
	Count int64         `json:"count"`
	Event postern.Event `json:"event"`
}

func (m Message) public() public { return public{m.ID, m.Alert, m.Text, m.Count, m.Event} }

// runCommand runs the receiver's command, with the message as JSON on its standard input
// and its ID and alert in the environment. It is ended with the processes that it has
// started when ctx ends.
func runCommand(ctx context.Context, m Message) error {
	input, err := json.Marshal(m.public())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, m.To.Command[0], m.To.Command[1:]...)
	system.EndGroup(cmd)
	cmd.WaitDelay = time.Second
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "POSTERN_ALERT=" + m.Alert, "POSTERN_ALERT_ID=" + m.ID}
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return postern.Errorf(postern.Unavailable, "the command fails: %w", err)
	}
	return nil
}

// subject is that of a mail.
func (m Message) subject() string {
	if m.Count > 1 {
		return fmt.Sprintf("Postern: %s (%d times)", m.Alert, m.Count)
	}
	return "Postern: " + m.Alert
}

// mail is the text of a mail.
func (m Message) mail() string {
	text := fmt.Sprintf("%s\n%s\n", m.Event.Time.UTC().Format("Monday 2 January 2006, 15:04:05 UTC"), m.Text)
	if m.Count > 1 {
		text += fmt.Sprintf("\nThis is the last of %d that matched since the message before.\n", m.Count)
	}
	return text + fmt.Sprintf("\nIt is entry %d of the timeline, and this is the alert %s.\n", m.Event.Index, m.Alert)
}
