// Keeps what is typed as it is typed, and gives the buttons keys. Without it the buttons work as they are.
"use strict";
(() => {
  const problem = document.querySelector(".problem");
  const form = document.querySelector("#form");
  const text = document.querySelector("#text");
  const say = (message) => {
    problem.textContent = message;
    problem.hidden = !message;
  };
  const SILENT = "The program does not answer. What you wrote is still in this page: leave it open and give the " +
    "command again where it was started; the page then goes on by itself.";

  let saved = text ? text.value : "";
  let busy = null, timer = 0, firstUnsaved = 0, seconds = 0, lastActive = Date.now(), leaving = false;
  const field = (name) => form.elements[name];

  const count = () => {
    const words = text.value.trim() ? text.value.trim().split(/\s+/).length : 0;
    document.querySelector("#count").textContent = `${words} word${words === 1 ? "" : "s"}`;
  };
  const body = () => JSON.stringify({
    as: field("as").value, prompt: field("prompt").value, page: field("page").value, text: text.value,
    after: field("after").value ? Number(field("after").value) : null, began: field("began").value,
  });
  const status = (message) => { document.querySelector("#status").textContent = message; };
  const later = (wait) => { clearTimeout(timer); timer = setTimeout(save, wait); };
  const save = () => {
    if (!busy && text.value !== saved) busy = keep().finally(() => { busy = null; });
    return busy;
  };
  async function keep() {
    const sent = text.value;
    try {
      const answer = await fetch("draft", { method: "POST", body: body() });
      if (!answer.ok) throw new Error(await answer.text());
      saved = sent;
      firstUnsaved = 0;
      status(`Saved ${new Date().toLocaleTimeString()}`);
      say("");
      if (text.value !== saved) later(300);
    } catch (error) {
      status("Not saved yet; trying again");
      say(error instanceof TypeError ? SILENT : `Not saved: ${error.message}`);
      later(2000);
    }
  }
  const typed = () => {
    count();
    if (text.value === saved) return;
    status("…");
    firstUnsaved = firstUnsaved || Date.now();
    later(Date.now() - firstUnsaved > 2000 ? 0 : 400); // behind the last key, and at most 2 s behind the first
  };
  // A last word before the page is gone, which need not be heard.
  const last = () => { if (text.value !== saved && !leaving) navigator.sendBeacon("draft", body()); };

  if (text) {
    count();
    text.addEventListener("input", typed);
    document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") last(); });
    window.addEventListener("pagehide", last);
    window.addEventListener("beforeunload", (event) => { if (text.value !== saved && !leaving) event.preventDefault(); });
    for (const name of ["keydown", "pointerdown", "scroll"]) {
      document.addEventListener(name, () => { lastActive = Date.now(); }, { passive: true });
    }
    setInterval(() => { // time at work: the page is in view, and something was done within a minute
      if (document.visibilityState === "visible" && Date.now() - lastActive < 60000) field("seconds").value = ++seconds;
    }, 1000);
    for (const button of document.querySelectorAll("button.use")) {
      button.addEventListener("click", () => {
        text.value = button.parentElement.querySelector(".text").textContent;
        text.focus();
        typed();
      });
    }
    const suggest = document.querySelector("#suggest");
    if (suggest) {
      suggest.addEventListener("click", async () => {
        suggest.disabled = true;
        status("The model writes…");
        try {
          await save(); // what stands there is kept before it gives way
          const before = text.value;
          const fields = new URLSearchParams({ prompt: field("prompt").value });
          const answer = await fetch("suggest", { method: "POST", body: fields });
          if (!answer.ok) throw new Error(await answer.text());
          const draft = await answer.json();
          if (text.value !== before) { // somebody typed on meanwhile: that stays until it is asked for once more
            status("The draft is there: press its button again to take it");
            return;
          }
          text.value = draft.text;
          field("began").value = draft.began;
          document.querySelector("#origin").textContent = `(begins with a draft of ${draft.began}: revise it)`;
          text.focus();
          typed();
        } catch (error) {
          say(error instanceof TypeError ? SILENT : error.message);
          status("");
        } finally {
          suggest.disabled = false;
        }
      });
    }
    text.focus();
  }
  if (form) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (leaving) return; // a second press would answer the next prompt
      leaving = true;
      const fields = new URLSearchParams(new FormData(form));
      if (event.submitter) fields.set(event.submitter.name, event.submitter.value);
      try {
        if (text && fields.get("do") !== "submit") { // what was typed last is in no other field
          await save();
          await save();
          if (text.value !== saved) throw new TypeError();
        }
        const answer = await fetch(form.getAttribute("action"), { method: "POST", body: fields });
        if (!answer.ok) throw new Error(await answer.text());
        location.href = answer.url;
      } catch (error) {
        leaving = false;
        say(error instanceof TypeError ? SILENT : error.message);
        if (text) typed();
        if (/reason/.test(error.message)) document.querySelector("#reason").focus();
      }
    });
  }
  const press = (selector) => {
    const button = document.querySelector(selector);
    if (button && !button.disabled) button.click();
    return button;
  };
  const keys = { s: '[value="skip"]', f: '[value="flag"]', u: '[value="undo"]', n: '[value="later"]' };
  document.addEventListener("keydown", (event) => {
    const inText = event.target.matches("textarea, input");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && text) {
      event.preventDefault();
      press('[value="submit"]');
      return;
    }
    if (event.key === "Escape" && inText) event.target.blur();
    if (inText || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "d" && press("#suggest")) event.preventDefault();
    else if (key === "e" && text) { event.preventDefault(); text.focus(); }
    else if (key === "/") { event.preventDefault(); location.href = document.querySelector('nav a[href^="list"]').href; }
    else if (keys[key] && press(`button${keys[key]}`)) event.preventDefault();
    else if (/^[1-9]$/.test(key) && press(`button[name="score"][value="${key}"]`)) event.preventDefault();
  });
})();
