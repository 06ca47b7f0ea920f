/** Making elements. Texts become text nodes, so no text of a run folder can be markup. */

/** @typedef {Node | string | number | undefined | null | false} Child */

/**
 * Make an element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} [properties] attributes; functions are listeners: `onclick`
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false || value === null) continue;
    if (typeof value === "function")
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name === "value" || name === "checked") Reflect.set(element, name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** @param {(Child | Child[])[]} children @returns {(Node | string)[]} */
function nodes(children) {
  return children.flat().flatMap((child) => {
    if (child === undefined || child === null || child === false) return [];
    return [typeof child === "number" ? String(child) : child];
  });
}

/**
 * Replace the contents of an element.
 *
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/**
 * Make elements of markup that the server rendered. It escapes every text of a run folder, and the
 * policy of the page lets no script of it run.
 *
 * @param {string} text
 */
export function markup(text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  return template.content;
}

/** Write a number with six digits at most. @param {number} x */
export function digits(x) {
  if (!Number.isFinite(x)) return "–";
  if (x === 0 || Number.isInteger(x)) return String(x);
  const size = Math.abs(x);
  return size >= 1e-4 && size < 1e7 ? String(Number(x.toPrecision(6))) : x.toExponential(4);
}

/** A number, with the file's own digits on pointing at it. @param {number} x */
export function number(x) {
  return h("span", { class: "number", title: String(x), "data-value": x }, digits(x));
}

/** Write a time: "4.2 s", "1 min 30 s", "2 h 5 min". @param {number} seconds */
export function duration(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Write how long ago something was. @param {string} time @returns {string} */
export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** Tell something to those who hear the page. @param {string} text */
export function say(text) {
  const place = document.getElementById("said");
  if (place) place.textContent = text;
}

/** A time, in the reader's own zone. @param {string} time */
export function clock(time) {
  const date = new Date(time);
  const good = Number.isFinite(date.getTime());
  return h("time", { title: time }, good ? date.toLocaleTimeString() : time);
}

/** A word for a state, with a sign that does not need colours. @param {string} status */
export function chip(status) {
  return h("span", { class: `status ${status}` }, SIGNS[status] ?? "", " ", status);
}
/** @type {Record<string, string>} */
const SIGNS = {
  finished: "✓",
  running: "●",
  interrupted: "‖",
  failed: "✗",
  damaged: "!",
  pending: "○",
};

/** A bar for how much is done. @param {number} done @param {number} total @param {string} label */
export function bar(done, total, label) {
  return h("progress", {
    max: Math.max(1, total),
    value: Math.min(done, total),
    "aria-label": label,
  });
}

/**
 * A report in a frame that lets nothing of it run. It is asked for when it is opened.
 *
 * @param {string} title
 * @param {() => Promise<{ticket: string}>} ask
 */
export function reportFrame(title, ask) {
  const place = h("div", {});
  const details = h(
    "details",
    {
      ontoggle: async () => {
        if (!details.open || place.childElementCount > 0) return;
        const { ticket } = await ask();
        const src = `/report?${new URLSearchParams({ ticket })}`;
        place.append(h("iframe", { title: `Report of ${title}`, sandbox: "", src }));
      },
    },
    h(
      "summary",
      {},
      h("h2", {}, "Report"),
      h("span", { class: "soft" }, "with the data and the predictions"),
    ),
    place,
  );
  return h("section", { "aria-label": "Report" }, details);
}

/** A button that copies a text. @param {string} text @param {string} label */
export function copyButton(text, label) {
  const button = h(
    "button",
    {
      class: "small",
      type: "button",
      "aria-label": label,
      onclick: async () => {
        await navigator.clipboard.writeText(text).catch(() => undefined);
        button.textContent = "copied";
        setTimeout(() => fill(button, "copy"), 1500);
      },
    },
    "copy",
  );
  return button;
}
