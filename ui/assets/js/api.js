/**
 * Turns addresses of the agent into JSON and into endless streams of chunks.
 *
 * Addresses are relative to the page, which makes any path prefix work. A request that hangs is
 * given up, so that a lost connection is noticed.
 */

/** Without the user and password that an address may have: requests with those are refused by browsers. */
const BASE = `${location.origin}${location.pathname.replace(/[^/]*$/, "")}api/v0/web`;
const ANSWER_TIMEOUT_MS = 10_000;
/** Between two chunks of a stream. */
const SEPARATOR = "|;|";
/** A chunk longer than this is cut: the page must not hold what somebody sends without end. */
const CHUNK_CHARACTERS_MAX = 1 << 20;

/** An answer that is not 200. */
export class AnswerError extends Error {
  /** @param {number} status */
  constructor(status, text) {
    super(text === "" ? `the agent answered ${status}` : text);
    this.status = status;
  }
}

/**
 * @param {string} path below `api/v0/web`
 * @param {AbortSignal} signal
 */
export async function json(path, signal) {
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const response = await fetch(`${BASE}/${path}`, {
    signal: AbortSignal.any([signal, timeout]),
    headers: { Accept: "application/json" },
    cache: "no-store",
  });
  if (!response.ok) throw await refused(response);
  return response.json();
}

/**
 * Calls back with every chunk until the stream or the signal ends it.
 *
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {(chunk: string) => void} onChunk
 * @param {() => void} [onOpen]
 */
export async function stream(path, signal, onChunk, onOpen) {
  const response = await fetch(`${BASE}/${path}`, { signal, cache: "no-store" });
  if (!response.ok) throw await refused(response);
  onOpen?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const [chunks, left] = split(rest + value);
    rest = left.slice(-CHUNK_CHARACTERS_MAX);
    chunks.forEach(onChunk);
  }
}

/** Whole chunks, and what is left of the last: "a|;|b" is [["a"], "b"]. */
export function split(text) {
  const pieces = text.split(SEPARATOR);
  const rest = pieces.pop() ?? "";
  return [pieces.filter((piece) => piece !== ""), rest];
}

async function refused(response) {
  const text = await response.text().catch(() => "");
  const isShort = text.length < 300 && !text.trimStart().startsWith("<");
  return new AnswerError(response.status, isShort ? text.trim() : "");
}

/** An id as part of a path: its slashes stay. */
export function idPath(id) {
  return id.split("/").map(encodeURIComponent).join("/");
}
