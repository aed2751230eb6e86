package report

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/postern-project/postern/internal/posterntest"
)

// opened opens a page in a browser, in a window of that width, and fails the test if its
// script fails or does what its policy forbids.
func opened(t *testing.T, page string, width int64) context.Context {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := posterntest.NewBrowser(t).Open(false)
	if err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page's script failed: %+v", e.ExceptionDetails)
		case *log.EventEntryAdded:
			t.Errorf("the browser logs: %s", e.Entry.Text)
		}
	}); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, chromedp.EmulateViewport(width, 700), chromedp.Navigate("file://"+file),
		chromedp.WaitVisible(chromedp.CSS("h1")))
	return ctx
}

func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// await waits until an expression is true on the page.
func await(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if ok && err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not become true: %v", expression, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestInABrowser uses the page with a narrow window and a keyboard.
func TestInABrowser(t *testing.T) {
	ctx := opened(t, pageOf(t, recorded(t, stacked()...)), 390)
	await(t, ctx, `document.documentElement.scrollWidth === 390`)
	await(t, ctx, `performance.getEntriesByType("resource").length === 0`)

	const zoomed = `document.querySelector(".timeline .zoom").getAttribute("width")`
	do(t, ctx, chromedp.Focus(chromedp.CSS(".timeline")), chromedp.KeyEvent("+"), chromedp.KeyEvent("+"))
	await(t, ctx, zoomed+` === "400%"`)
	await(t, ctx, `document.querySelector(".timeline .ticks text").textContent !== "0"`)
	do(t, ctx, chromedp.Click(chromedp.CSS(`.tools button[title="show all"]`)))
	await(t, ctx, zoomed+` === "100%"`)

	await(t, ctx, `!document.querySelector("#calls").open`)
	do(t, ctx, chromedp.Click(chromedp.CSS(`.lane [data-link]`)))
	await(t, ctx, `document.querySelector("#calls").open && document.querySelector("tr:target").checkVisibility()`)

	const width = `document.querySelector(".flame .zoom").getAttribute("width")`
	do(t, ctx, chromedp.Focus(chromedp.CSS(".flame")), chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.Enter))
	await(t, ctx, width+` !== "100%"`)
	await(t, ctx, `document.querySelector(".flame").previousElementSibling.innerText.includes("events")`)
	do(t, ctx, chromedp.KeyEvent(kb.Escape))
	await(t, ctx, width+` === "100%"`)
	do(t, ctx, chromedp.Focus(chromedp.CSS(".tools input")), chromedp.KeyEvent("dispatch"))
	await(t, ctx, `document.querySelectorAll(".flame .found").length === 1`)
}
