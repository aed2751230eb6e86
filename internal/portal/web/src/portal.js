// The pages' script. Every page works without it, but for making keys.
import * as keys from "./keys.js";
import { tar } from "./tar.js";
import { zip } from "./zip.js";
import { profile } from "./profile.js";

const $ = (selector, root = document) => root.querySelector(selector);
const show = (element, on = true) => { if (element) element.hidden = !on; };

for (const form of document.querySelectorAll("form[data-check]")) openLink(form);
for (const form of document.querySelectorAll("form[data-make]")) form.addEventListener("submit", (event) => make(event, form));
for (const button of document.querySelectorAll("[data-print]")) button.addEventListener("click", () => print());
const invalid = $("[aria-invalid=true]");
if (invalid) invalid.focus();

// LOST is thrown when there was no answer. The portal may have done the request.
const LOST = { "": "No answer came from the portal. Nothing is lost: try again." };

// post sends a form's fields and returns the answer, or throws its errors as
// {field: sentence}.
async function post(url, body) {
  let answer;
  try {
    const response = await fetch(url, { method: "POST", body, headers: { Accept: "application/json" } });
    answer = await response.json();
  } catch {
    throw LOST;
  }
  if (answer.errors) throw answer.errors;
  return answer;
}

// complain shows errors beside their fields, shows those without a field at the top
// of the form, and moves the focus to the first.
function complain(form, errors) {
  if (errors instanceof Error) errors = { "": `The browser reports an error: ${errors.message}` };
  let first = null;
  const rest = [];
  for (const [name, text] of Object.entries(errors)) {
    const input = $(`#f-${name || "none"}`, form);
    const line = $(`#e-${name || "none"}`, form);
    if (!input || !line || input.closest("[hidden]")) {
      rest.push(text);
      continue;
    }
    const details = input.closest("details");
    if (details) details.open = true;
    input.setAttribute("aria-invalid", "true");
    line.textContent = text;
    show(line);
    first ??= input;
  }
  if (rest.length > 0) {
    const alert = document.createElement("p");
    alert.className = "alert";
    alert.setAttribute("role", "alert");
    alert.tabIndex = -1;
    alert.dataset.said = "";
    alert.textContent = rest.join(" ");
    form.prepend(alert);
    first ??= alert;
  }
  first?.focus();
}

function calm(form) {
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const line of form.querySelectorAll(".error")) show(line, false);
  for (const alert of form.querySelectorAll("[data-said]")) alert.remove();
}

// openLink removes the token from the address, so that it is neither in the history
// nor on the screen, and asks the portal what the link is for. The link is not used
// up by this.
async function openLink(form) {
  const token = location.hash.slice(1);
  if (!/^[a-z2-7]{32}$/i.test(token)) return;
  history.replaceState(null, "", location.pathname);
  const input = $("[name=code]", form);
  input.value = token;
  const body = new FormData(form);
  try {
    const link = await post(form.dataset.check, body);
    show($("[data-codefield]", form), false);
    if (form.dataset.then) form.action = form.dataset.then;
    $("[data-person]", form).textContent = link.person || link.email;
    $("[data-email]", form).textContent = link.person && link.email ? ` (${link.email})` : "";
    if (link.name) $("[data-name]", form).textContent = link.name;
    show($("[data-for]", form));
    show($("[data-question]", form));
    show($("[data-look]", form), false);
    show($("[data-revokes]", form), Boolean(link.revokes));
    if (link.ask) {
      $("[data-ask]", form).classList.remove("nojs-only");
      $("[data-ask] .optional", form)?.remove();
      $("[name=person]", form).value = link.suggest;
    }
  } catch (errors) {
    complain(form, errors);
  }
}

// make makes a key, gets a certificate for it and offers the files. A form with a
// request that the person made is sent without script.
async function make(event, form) {
  if (event.submitter?.name === "own") return;
  event.preventDefault();
  calm(form);
  const passphrase = $("[data-pass]", form)?.value;
  const wrong = checkPassphrase(form, passphrase);
  if (wrong) return complain(form, wrong);
  const status = $("[data-status]", form);
  const button = $("[data-go]", form);
  const say = (text) => { status.textContent = text; };
  button.disabled = true;
  try {
    await (form.dataset.make === "server" ? makeServer(form, say) : makeClient(form, passphrase, say));
  } catch (errors) {
    complain(form, errors);
  } finally {
    say("");
    button.disabled = false;
  }
}

function checkPassphrase(form, passphrase) {
  if (passphrase === undefined) return null;
  if ([...passphrase].length < 10) return { pass: "Use at least 10 characters." };
  if (passphrase !== $("[data-pass2]", form).value) return { pass2: "This is not the same as above." };
  return null;
}

function fields(form, csr) {
  const body = new FormData(form);
  body.delete("csrfile");
  body.set("csr", csr);
  return body;
}

// The key whose request was sent. It is kept until the portal answers: to the same
// request the portal gives the same certificate.
let sent = null;

// certificate makes a key, and returns it with the portal's answer.
async function certificate(form, names, say, requesting) {
  if (!sent) {
    say("Making the key…");
    const pair = await keys.newKey();
    sent = { pair, csr: await keys.request(pair, "", names) };
  }
  say(requesting);
  unsaved = true;
  try {
    return { pair: sent.pair, made: await post(form.action, fields(form, sent.csr)) };
  } catch (errors) {
    if (errors !== LOST) {
      sent = null;
      unsaved = false;
    }
    throw errors;
  }
}

async function makeClient(form, passphrase, say) {
  const { pair, made } = await certificate(form, [], say, "Requesting the certificate…");
  say("Encrypting it with your passphrase…");
  const chain = made.chain.map(keys.fromBase64);
  const name = `${made.person} ${made.label}`.trim();
  const p12 = await keys.pkcs12(pair, chain, passphrase, `${name} until ${made.ends}`);
  const result = $("[data-result]");
  const file = name.replace(/[^A-Za-z0-9.-]+/g, "-");
  offer($("[data-p12]", result), p12, "application/x-pkcs12", `${file}.p12`);
  offer($("[data-profile]", result), profile(made, p12), "application/x-apple-aspen-config", `${file}.mobileconfig`);
  $("[data-until]", result).textContent = made.until;
  if (made.codes?.length) showCodes(result, made);
  show($("[data-again]", result), Boolean(made.again));
  reveal(form, result);
}

function showCodes(result, made) {
  for (const code of made.codes) {
    const item = document.createElement("li");
    const text = document.createElement("code");
    text.textContent = code;
    item.append(text);
    $("[data-codes]", result).append(item);
  }
  const text = `Recovery codes of ${made.person} for ${made.site}\n${location.origin}/recover\n\n${made.codes.join("\n")}\n`;
  offer($("[data-codes-file]", result), text, "text/plain", "postern-recovery-codes.txt");
  show($("[data-codes-box]", result));
}

async function makeServer(form, say) {
  const { pair, made } = await certificate(form, form.dataset.names.split("\n"), say, "Checking the names again, and requesting the certificate…");
  const key = await keys.privateKeyPEM(pair);
  const result = $("[data-result]");
  const kind = $("[data-kind]", result);
  for (const name of made.kinds) kind.append(new Option(name, name));
  const choose = () => {
    const layout = made.layouts[kind.value];
    const files = layout.files.map((file) => ({ ...file, body: file.body.replaceAll(made.key, () => key) }));
    offer($("[data-tar]", result), tar(files), "application/x-tar", `${made.name}-${kind.value}.tar`);
    offer($("[data-zip]", result), zip(files), "application/zip", `${made.name}-${kind.value}.zip`);
    $("[data-dir]", result).textContent = layout.dir;
    $("[data-snippet]", result).textContent = layout.snippet;
    show($("[data-snippet]", result), layout.snippet !== "");
  };
  kind.addEventListener("change", choose);
  choose();
  $("[data-until]", result).textContent = made.until;
  reveal(form, result);
}

// offer makes a link that saves the content under a name.
function offer(link, content, type, name) {
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.addEventListener("click", () => { unsaved = false; });
}

// Whether a key was made and not saved. The browser then asks before leaving the page.
let unsaved = false;
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

function reveal(form, result) {
  show(form, false);
  const box = form.closest(".card");
  if (box && !box.contains(result)) show(box, false);
  for (const part of document.querySelectorAll("[data-before]")) show(part, false);
  show(result);
  result.focus();
  result.scrollIntoView();
}
