/**
 * Turns changes of state into words for who listens instead of looking.
 *
 * Numbers change every second and are not announced; that an endpoint went from delivering to
 * retrying is.
 */

const announcer = document.getElementById("announcer");

/** Says it when the screen reader is done with what it says. */
export function announce(text) {
  if (announcer !== null) announcer.textContent = text;
}

/** Remembers the last state of each thing; tells of those that changed, never of the first. */
export class Changes {
  #last = new Map();

  /** @param {string} what @param {string} state */
  see(what, state) {
    const before = this.#last.get(what);
    this.#last.set(what, state);
    if (before !== undefined && before !== state) announce(`${what}: ${state}`);
  }
}
