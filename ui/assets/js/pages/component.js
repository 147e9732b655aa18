/**
 * Turns one component into its page: health, arguments as configuration text, who it hangs together with.
 */

import { Changes } from "../announce.js";
import { idPath } from "../api.js";
import { h, setChildren, setText } from "../dom.js";
import { ago, dateTime } from "../format.js";
import { picture } from "../icons.js";
import { badge, copyButton, linkList, loading, notice, section } from "../parts/common.js";
import { plain, tokens } from "../parts/statements.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { componentID, healthTone } from "../words.js";

const INTERVAL_MS = 1000;

/** @param {HTMLElement} place @param {string} id @param {AbortSignal} signal */
export function showComponent(place, id, signal) {
  const health = badge();
  const message = h("p", { class: "health-message" });
  const since = h("p", { class: "muted" });
  const tools = h("p", { class: "actions" });
  const problem = h("div");
  const body = h("div", { class: "stack", hidden: true });
  const wait = loading();
  place.append(
    h("nav", { "aria-label": "Breadcrumb", class: "crumbs" }, h("a", { href: link("components") }, "Components")),
    h("h1", { class: "id" }, id),
    problem,
    wait,
    body,
  );
  const blocks = {
    arguments: statements("Arguments", "it has no arguments"),
    exports: statements("Exports", "it exports nothing"),
    debugInfo: statements("Debug information", "it tells nothing more"),
  };
  const links = h("div", { class: "columns" });
  const modules = h("div");
  body.append(
    section("Health", h("div", { class: "health-row" }, health.element, message), since, tools),
    section("Connections", links),
    blocks.arguments.element,
    blocks.exports.element,
    blocks.debugInfo.element,
    modules,
  );
  const changes = new Changes();
  let shape = "";

  poll(`components/${idPath(id)}`, {
    signal,
    intervalMs: INTERVAL_MS,
    onNews(/** @type {import("../contract.js").Detail} */ detail) {
      wait.hidden = true;
      body.hidden = false;
      setChildren(problem);
      const { state, message: text, updatedTime } = detail.health;
      health.update(healthTone(state), state);
      changes.see(id, state);
      setText(message, text);
      setText(since, sinceText(updatedTime));
      for (const name of Object.keys(blocks)) blocks[name].update(detail[name] ?? []);
      const next = JSON.stringify([detail.referencesTo, detail.referencedBy, detail.dataFlowEdgesTo, detail.createdModuleIDs, detail.liveDebuggingEnabled]);
      if (next === shape) return;
      shape = next;
      showLinks(links, detail);
      showTools(tools, detail, id);
      showModules(modules, detail, signal);
    },
    onRefused(error) {
      wait.hidden = true;
      const text = error.status === 404 ? "There is no such component, or no longer." : error.message;
      setChildren(problem, notice("warn", text));
    },
  });
}

function sinceText(updatedTime) {
  const date = new Date(updatedTime);
  return Number.isNaN(date.getTime()) ? "" : `since ${dateTime(date)} (${ago((Date.now() - date.getTime()) / 1000)})`;
}

function showLinks(place, detail) {
  const within = (id) => (detail.moduleID === "" ? id : `${detail.moduleID}/${id}`);
  const list = (title, ids) => h("div", {}, h("h3", {}, title), linkList(ids.map((id) => ({ href: link("components", within(id)), text: id }))));
  setChildren(
    place,
    list("It refers to", detail.referencesTo),
    list("Referred to by", detail.referencedBy),
    list("It sends to", detail.dataFlowEdgesTo),
  );
}

function showTools(place, detail, id) {
  const isWriter = detail.name === "prometheus.remote_write";
  setChildren(
    place,
    detail.liveDebuggingEnabled && h("a", { class: "button", href: link("debug", id) }, picture("debug"), "Live debugging"),
    isWriter && h("a", { class: "button", href: link("reservoir") }, picture("reservoir"), "Reservoir"),
    isWriter && h("a", { class: "button", href: link("cardinality", id) }, picture("cardinality"), "Cardinality"),
  );
}

/** The components of the modules it made, each asked for once. */
function showModules(place, detail, signal) {
  setChildren(place);
  for (const moduleID of detail.createdModuleIDs) {
    const list = h("div");
    place.append(section(`Module ${moduleID}`, list));
    let shown = "";
    poll(`modules/${idPath(moduleID)}/components`, {
      signal,
      intervalMs: 5 * INTERVAL_MS,
      onNews(components) {
        const items = components.map((component) => ({ href: link("components", componentID(component)), text: component.localID }));
        if (JSON.stringify(items) === shown) return;
        shown = JSON.stringify(items);
        setChildren(list, linkList(items, "no components"));
      },
    });
  }
}

/** A block of configuration text. */
function statements(title, none) {
  const code = h("code");
  let text = "";
  let shown = null;
  const copy = copyButton(() => text);
  const block = h("pre", { class: "config", tabindex: "0", role: "region", "aria-label": title }, code);
  const empty = h("p", { class: "muted", hidden: true }, none);
  const element = h("section", { class: "card" }, h("header", { class: "card-head" }, h("h2", {}, title), copy), block, empty);
  const update = (body) => {
    const key = JSON.stringify(body);
    if (key === shown) return;
    shown = key;
    const pieces = tokens(body);
    text = plain(pieces);
    setChildren(code, pieces.map(([kind, piece]) => (kind === "" ? piece : h("span", { class: `token-${kind}` }, piece))));
    block.hidden = copy.hidden = body.length === 0;
    empty.hidden = body.length > 0;
  };
  return { element, update };
}
