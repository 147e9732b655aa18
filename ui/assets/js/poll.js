/**
 * Turns a request into news at an interval, and its failures into the state of the connection.
 *
 * Nothing is asked while the tab is hidden, and never is a request made while the one before it
 * is unanswered. Where the agent is gone it is asked again a little later each time, as often as
 * that takes: the page heals by itself.
 */

import { AnswerError, json, stream } from "./api.js";

const RETRY_MS = [1000, 2000, 3000, 5000];

/** @typedef {{isLost: boolean, status: number|null, since: number|null}} Connection */

/** @type {Set<(connection: Connection) => void>} */
const listeners = new Set();
/** @type {Connection} */
let connection = { isLost: false, status: null, since: null };

/** Tells of every change of the connection. */
export function onConnection(listener) {
  listeners.add(listener);
}

function tell(next) {
  const isSame = next.isLost === connection.isLost && next.status === connection.status;
  if (isSame) return;
  const since = next.isLost ? (connection.since ?? Date.now()) : null;
  connection = { ...next, since };
  for (const listener of listeners) listener(connection);
}

function answered() {
  tell({ isLost: false, status: null });
}

/** A 404 or 503 is an answer about a thing; no answer, or no admission, is about the connection. */
function failed(error) {
  if (!(error instanceof AnswerError)) tell({ isLost: true, status: null });
  else if (error.status === 401 || error.status === 403) tell({ isLost: true, status: error.status });
  else answered();
}

/**
 * Asks for `path` now and every `intervalMs` until the signal.
 *
 * @param {string} path
 * @param {{signal: AbortSignal, intervalMs: number, onNews: (news: any) => void,
 *   onRefused?: (error: AnswerError) => void}} options
 */
export async function poll(path, { signal, intervalMs, onNews, onRefused }) {
  let failures = 0;
  while (!signal.aborted) {
    await visible(signal);
    const news = await json(path, signal).catch((error) => error);
    if (signal.aborted) return;
    if (news instanceof Error) {
      failed(news);
      if (news instanceof AnswerError) onRefused?.(news);
      failures += 1;
    } else {
      answered();
      failures = 0;
      onNews(news);
    }
    await pause(failures === 0 ? intervalMs : retryMs(failures, intervalMs), signal);
  }
}

/**
 * Follows an endless stream, anew when it ends, while the tab is visible.
 *
 * @param {string} path
 * @param {{signal: AbortSignal, onChunk: (chunk: string) => void,
 *   onState?: (state: "open"|"closed"|AnswerError) => void}} options
 */
export async function follow(path, { signal, onChunk, onState }) {
  let failures = 0;
  while (!signal.aborted) {
    await visible(signal);
    const ended = new AbortController();
    const stop = () => document.hidden && ended.abort();
    document.addEventListener("visibilitychange", stop);
    const both = AbortSignal.any([signal, ended.signal]);
    try {
      await stream(path, both, onChunk, () => {
        failures = 0;
        onState?.("open");
      });
    } catch (error) {
      if (error instanceof AnswerError) onState?.(error);
    }
    document.removeEventListener("visibilitychange", stop);
    if (signal.aborted) return;
    failures += 1;
    onState?.("closed");
    await pause(retryMs(failures, 0), signal);
  }
}

function retryMs(failures, intervalMs) {
  return Math.max(intervalMs, RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
}

/** Resolves when the tab can be seen, or at the signal. */
function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", done);
      resolve(undefined);
    };
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done, { once: true });
  });
}

/** A wait that ends early at the signal and leaves nothing behind. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve(undefined);
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
}
