// Keys for the buttons of the page. Without this script the buttons work as they are.
"use strict";
(() => {
  const form = document.querySelector("form");
  if (!form) return;
  const keys = { 1: "left", 2: "right", t: "tie", s: "skip", u: "undo" };
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault(); // a second press would answer the next question
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; }); // back in the history
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = form.querySelector(`button[value="${keys[event.key.toLowerCase()]}"]`);
    if (button && !button.disabled) {
      event.preventDefault();
      button.click();
    }
  });
})();
