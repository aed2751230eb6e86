// Shows entries of the timeline as they are written. Without this script the page is
// reloaded instead.
const list = document.querySelector("[data-live]");
const status = document.querySelector("[data-live-status]");
const pause = document.querySelector("[data-live-pause]");
const most = 300; // lines that the page keeps: older ones are pages of their own

const element = (name, attributes, ...children) => {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
};

const part = ({ text, path }) => (path ? element("a", { href: path }, text) : text);

const line = (l) => {
  const said = element("span", { class: "said" }, ...l.parts.map(part));
  if (l.outcome !== "ok") said.append(" ", element("span", { class: "state gone" }, l.outcome));
  return element("li", { id: `entry-${l.index}`, class: "new" },
    element("a", { class: "when", href: `/admin/timeline/${l.index}` }, element("time", { datetime: l.time }, l.when)), said);
};

let source = null;
let next = new URL(list?.dataset.live ?? "", location).searchParams.get("next");

const add = (event) => {
  const batch = JSON.parse(event.data);
  const added = batch.lines.map(line);
  if (batch.folded) added.push(element("li", { class: "fold" }, part(batch.folded)));
  list.prepend(...added);
  while (list.children.length > most) list.lastElementChild.remove();
  document.querySelector("[data-live-none]")?.remove();
};

const open = () => {
  const url = new URL(list.dataset.live, location);
  url.searchParams.set("next", next);
  source = new EventSource(url);
  let ended = false;
  source.onopen = () => { status.textContent = "Live, newest first, UTC"; };
  source.addEventListener("lines", (event) => { next = event.lastEventId; add(event); });
  source.addEventListener("end", () => {
    ended = true;
    close();
    pause.hidden = true;
    status.textContent = "You may not see this any more. Reload the page.";
  });
  source.onerror = () => {
    if (ended) return;
    status.textContent = "Not connected: trying again";
    const failed = source;
    if (failed.readyState === EventSource.CLOSED) setTimeout(() => { if (source === failed) open(); }, 10000);
  };
};

const close = () => { source?.close(); source = null; };

if (list && status && pause) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    if (pause.dataset.paused) {
      delete pause.dataset.paused;
      pause.textContent = "Pause";
      open();
    } else {
      pause.dataset.paused = "yes";
      pause.textContent = "Go on";
      close();
      status.textContent = "Paused";
    }
  });
  open();
}
