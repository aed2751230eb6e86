// Marks the page as one where keys can be made, before it is drawn.
if ("noModule" in HTMLScriptElement.prototype && window.crypto && crypto.subtle) {
  document.documentElement.classList.add("js");
}
