// Asks the browser to make a passkey, or to sign with one. The form names what begins
// the ceremony (data-passkey) and what ends it (action); fields of the form go to both.
for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
}

async function ask(form) {
  const button = form.querySelector("[data-go]");
  const alert = form.querySelector("[data-alert]");
  const status = form.querySelector("[data-status]");
  alert.hidden = true;
  button.disabled = true;
  status.textContent = "Your browser asks you now.";
  try {
    if (!globalThis.PublicKeyCredential?.parseCreationOptionsFromJSON) {
      throw new Error("This browser is too old for passkeys.");
    }
    const begun = await post(form.dataset.passkey, new FormData(form));
    const credential = begun.options.user
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(begun.options) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(begun.options) });
    const body = new FormData(form);
    body.set("state", begun.state);
    body.set("response", JSON.stringify(credential));
    location.assign((await post(form.action, body)).to);
  } catch (error) {
    status.textContent = "";
    alert.textContent = words[error.name] ?? error.message;
    alert.hidden = false;
    button.disabled = false;
  }
}

// What browsers mean by these names (W3C Web Authentication Level 3, 5.1.3 and 5.1.4).
const words = {
  NotAllowedError: "No passkey was used: it was cancelled, or took too long. Try again.",
  InvalidStateError: "That phone, computer or key has a passkey for you already.",
  TypeError: "No answer came from the portal. Try again.",
};

// post sends a form and returns the answer; it throws what is wrong, in words.
async function post(url, body) {
  const response = await fetch(url, { method: "POST", body, headers: { Accept: "application/json" } });
  const answer = await response.json();
  if (answer.errors) throw new Error(Object.values(answer.errors).join(" "));
  return answer;
}
