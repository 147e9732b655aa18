/**
 * Turns a component's live debugging stream into lines to read, search and copy.
 *
 * Limits: `LINES_MAX` lines are kept, the oldest go; a line is cut at `LINE_CHARACTERS_MAX`. While
 * paused the stream is closed: the agent has no work with who does not look.
 */

import { AnswerError, idPath } from "../api.js";
import { h, setAttribute, setChildren, setText } from "../dom.js";
import { exact } from "../format.js";
import { badge, copyButton, notice } from "../parts/common.js";
import { follow, poll } from "../poll.js";
import { link } from "../router.js";
import { componentID } from "../words.js";
import { LineKeeper } from "../parts/lines.js";

const COMPONENTS_INTERVAL_MS = 5000;
const CHANCES = [["all", 1], ["1 in 10", 0.1], ["1 in 100", 0.01], ["1 in 1000", 0.001]];

/** @param {HTMLElement} place @param {string} id @param {AbortSignal} signal */
export function show(place, id, signal) {
  const form = controls(id);
  const state = badge();
  const seen = h("p", { class: "muted" });
  const output = h("ol", { class: "lines", tabindex: "0", "aria-label": "Lines, newest last", role: "log", "aria-live": "off" });
  const problem = h("div");
  const keeper = new LineKeeper();
  const view = lineView(output, keeper, form.search);
  const clear = h("button", { type: "button" }, "Clear");
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  place.append(
    h("h1", {}, "Live debugging"),
    form.element,
    problem,
    h("div", { class: "tools lines-tools" }, state.element, seen, pause, clear, copyButton(() => keeper.lines.join("\n"), "Copy lines")),
    output,
  );
  let isPaused = false;
  let following = new AbortController();
  signal.addEventListener("abort", () => following.abort());

  const start = () => {
    following.abort();
    setChildren(problem);
    if (id === "") return state.update("idle", "pick a component");
    if (isPaused) return state.update("idle", "paused");
    following = new AbortController();
    state.update("busy", "connecting");
    follow(`debug/${idPath(id)}?sampleProb=${form.chance.value}&filter=${encodeURIComponent(form.filter.value)}`, {
      signal: following.signal,
      onChunk(chunk) {
        keeper.add(chunk);
        view.later();
        setText(seen, `${exact(keeper.lines.length)} lines${keeper.left > 0 ? `, ${exact(keeper.left)} older ones gone` : ""}`);
      },
      onState(now) {
        if (now === "open") state.update("good", "live");
        else if (now === "closed") state.update("warn", "trying again");
        if (now instanceof AnswerError) setChildren(problem, now.status === 404 ? off(id) : notice("warn", now.message));
      },
    });
  };
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    setAttribute(pause, "aria-pressed", String(isPaused));
    setText(pause, isPaused ? "Go on" : "Pause");
    start();
  });
  clear.addEventListener("click", () => {
    keeper.clear();
    setText(seen, "");
    view.draw();
  });
  form.onPick((next) => (location.hash = link("debug", next)));
  form.onChange(start);
  form.search.addEventListener("input", view.draw);
  poll("components", { signal, intervalMs: COMPONENTS_INTERVAL_MS, onNews: (news) => form.setChoices(news, problem) });
  start();
}

function off(id) {
  return notice("idle", `There is no live debugging for ${id}. It is turned on by a block in the configuration: `, h("code", {}, "livedebugging { enabled = true }"));
}

function controls(id) {
  const pick = h("select", { id: "component" });
  const chance = h("select", { id: "chance" }, CHANCES.map(([title, value]) => h("option", { value }, title)));
  const filter = h("input", { type: "text", id: "stream-filter", autocomplete: "off", spellcheck: "false", placeholder: "only what contains this" });
  const search = h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "marks what is here" });
  const element = h(
    "form",
    { class: "tools", on: { submit: (event) => event.preventDefault() } },
    h("label", { for: "component" }, "Component ", pick),
    h("label", { for: "chance" }, "Sampling ", chance),
    h("label", { for: "stream-filter" }, "Filter at the agent ", filter),
    h("label", { for: "search" }, "Search here ", search),
  );
  /** @param {import("../contract.js").Summary[]} components */
  const setChoices = (components, problem) => {
    const able = components.filter((component) => component.liveDebuggingEnabled).map(componentID);
    if (able.length === 0 && id === "") setChildren(problem, off("any component"));
    const ids = able.includes(id) || id === "" ? able : [id, ...able];
    const key = JSON.stringify(ids);
    if (pick.dataset.ids === key) return;
    pick.dataset.ids = key;
    setChildren(pick, h("option", { value: "" }, "–"), ids.map((each) => h("option", { value: each, selected: each === id }, each)));
  };
  return {
    element,
    chance,
    filter,
    search,
    setChoices,
    onPick: (listener) => pick.addEventListener("change", () => listener(pick.value)),
    onChange(listener) {
      chance.addEventListener("change", listener);
      filter.addEventListener("change", listener);
    },
  };
}

/** The lines as elements, made once each; the view stays at the end if it is there. */
function lineView(output, keeper, search) {
  let drawn = 0;
  let isWaiting = false;
  const draw = () => {
    isWaiting = false;
    drawn = keeper.left + keeper.lines.length;
    output.replaceChildren(...keeper.lines.map((line) => item(line, search.value)));
    output.scrollTop = output.scrollHeight;
  };
  const append = () => {
    isWaiting = false;
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    const all = keeper.left + keeper.lines.length;
    const fresh = Math.min(all - drawn, keeper.lines.length);
    drawn = all;
    if (fresh > 0) output.append(...keeper.lines.slice(-fresh).map((line) => item(line, search.value)));
    while (output.childElementCount > keeper.lines.length) output.firstElementChild.remove();
    if (isAtEnd) output.scrollTop = output.scrollHeight;
  };
  const later = () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(append);
  };
  return { draw, later };
}

function item(line, wanted) {
  if (wanted === "") return h("li", {}, line);
  const lower = line.toLowerCase();
  const needle = wanted.toLowerCase();
  const parts = [];
  let from = 0;
  for (let at = lower.indexOf(needle); at >= 0; at = lower.indexOf(needle, from)) {
    parts.push(line.slice(from, at), h("mark", {}, line.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  return h("li", { class: parts.length === 0 ? "is-other" : null }, parts, line.slice(from));
}
