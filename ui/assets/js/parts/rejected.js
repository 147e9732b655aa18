/**
 * Turns dead letters into a list that is asked for when somebody opens it.
 *
 * What an endpoint said is a stranger's text: shown as text, cut to a length one reads.
 */

import { h, setChildren, setText } from "../dom.js";
import { bytes, clock, exact, plural } from "../format.js";
import { AnswerError, idPath, json } from "../api.js";

const LIMIT = 50;
const TEXT_CHARACTERS_MAX = 600;

/**
 * @param {string} writerID
 * @param {string} endpoint
 * @param {AbortSignal} signal
 */
export function rejected(writerID, endpoint, signal) {
  const summary = h("summary", {}, "Refused for good");
  const list = h("div", { class: "rejected" });
  const details = h("details", { class: "rejected-box" }, summary, list);
  let isAsking = false;
  let last = -1;

  async function ask() {
    if (isAsking) return;
    isAsking = true;
    try {
      const all = await json(`rejected/${idPath(writerID)}?limit=${LIMIT}`, signal);
      show(list, all.filter((letter) => letter.endpoint === endpoint));
    } catch (error) {
      if (!signal.aborted) setChildren(list, h("p", { class: "muted" }, error instanceof AnswerError ? error.message : "the agent does not answer"));
    }
    isAsking = false;
  }

  details.addEventListener("toggle", () => details.open && ask());
  return {
    element: details,
    /** @param {{files: number, bytes: number}} kept @param {number} records */
    update(kept, records) {
      details.hidden = kept.files === 0 && records === 0;
      setText(summary, `Refused for good: ${plural(records, "record", "records")}, ${bytes(kept.bytes)} kept`);
      if (details.open && kept.bytes !== last) ask();
      last = kept.bytes;
    },
  };
}

function show(list, letters) {
  if (letters.length === 0) return setChildren(list, h("p", { class: "muted" }, "none of the newest are of this endpoint"));
  setChildren(list, letters.map((letter) =>
    h(
      "article",
      { class: "letter" },
      h(
        "p",
        { class: "letter-head" },
        h("b", {}, letter.status > 0 ? `HTTP ${letter.status}` : letter.reason),
        h("span", { class: "muted" }, `${exact(letter.records)} records at ${clock(letter.at)}`),
      ),
      h("pre", { tabindex: "0" }, letter.text.slice(0, TEXT_CHARACTERS_MAX)),
    )));
}
