"use strict";
(function () {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const at = (id) => document.getElementById(id);
  const [left, right, talk, problem] = ["left", "right", "talk", "problem"].map(at);
  const history = { left: [], right: [] };
  at("key-label").hidden = !facts.needs_key;

  function headers() {
    const key = at("key").value;
    return Object.assign({ "Content-Type": "application/json" }, key ? { Authorization: "Bearer " + key } : {});
  }

  function tell(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  function element(tag, parent, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  async function listModels() {
    const answer = await fetch("v1/models", { headers: headers() });
    const body = await answer.json();
    if (!answer.ok) return tell(body.error.message);
    tell("");
    for (const select of [left, right]) {
      select.replaceChildren();
      for (const model of body.data) element("option", select, "", model.id).value = model.id;
    }
    const tuned = body.data.find((model) => model.parent);
    if (tuned) [left.value, right.value] = [tuned.parent, tuned.id];
    else if (body.data.length > 1) right.value = body.data[1].id;
  }

  // The lines of a stream: `data: {...}`, with an error where something went wrong on the way.
  async function stream(model, messages, onText) {
    const body = { model, messages, stream: true, temperature: Number(at("temperature").value) || 0 };
    const answer = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body) });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        for (const choice of chunk.choices) onText(choice.delta.content || "");
      }
    }
  }

  async function reply(side, model, shown) {
    let text = "";
    await stream(model, history[side], (more) => {
      text += more;
      shown.textContent = text;
    });
    history[side].push({ role: "assistant", content: text });
    return text;
  }

  function offerVerdicts(turn, rating) {
    const row = element("div", turn, "verdicts");
    for (const [said, words] of [["left", "Left is better"], ["tie", "Tie"], ["right", "Right is better"]]) {
      const button = element("button", row, "", words);
      button.type = "button";
      button.addEventListener("click", async () => {
        const body = JSON.stringify(Object.assign({ verdict: said }, rating));
        const answer = await fetch("ratings", { method: "POST", headers: headers(), body }).catch(() => null);
        if (!answer || !answer.ok) return tell(answer ? (await answer.json()).error.message : "The server has gone.");
        tell("");
        for (const other of row.children) other.setAttribute("aria-pressed", String(other === button));
      });
    }
  }

  async function ask(words) {
    const turn = element("section", talk, "turn");
    element("p", turn, "question", words);
    const replies = element("div", turn, "replies");
    const names = { left: left.value, right: right.value };
    const shown = {};
    for (const side of ["left", "right"]) {
      const box = element("div", replies, "reply");
      element("h2", box, "", names[side]);
      shown[side] = element("p", box);
      history[side].push({ role: "user", content: words });
    }
    const messages = { left: history.left.slice(), right: history.right.slice() };
    try {
      const texts = await Promise.all(["left", "right"].map((side) => reply(side, names[side], shown[side])));
      if (facts.rates) {
        const entry = (side, number) => ({ model: names[side], messages: messages[side], reply: texts[number] });
        offerVerdicts(turn, { left: entry("left", 0), right: entry("right", 1) });
      }
    } catch (error) {
      tell(error.message);
    }
  }

  at("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = at("words").value.trim();
    if (!words || at("send").disabled) return;
    at("words").value = "";
    tell("");
    at("send").disabled = true;
    await ask(words);
    at("send").disabled = false;
    at("words").focus();
  });
  at("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      at("ask").requestSubmit();
    }
  });
  at("key").addEventListener("change", listModels);
  at("again").addEventListener("click", () => {
    talk.replaceChildren();
    history.left = [];
    history.right = [];
    tell("");
  });
  listModels();
})();
