/** The page: its address, its views, its connection. */
import { CompareView } from "./compare.mjs";
import { fill, h } from "./dom.mjs";
import { RunView } from "./run.mjs";
import { RunsView } from "./runs.mjs";
import { Store } from "./store.mjs";
import { Link, Refused } from "./stream.mjs";
import { SweepView } from "./sweep.mjs";

/**
 * What a view needs of the page.
 *
 * @typedef {object} App
 * @property {Link} link
 * @property {Store} store
 * @property {(wanted?: Record<string, string | string[]>) => string} href address of a view
 * @property {Set<string>} chosen ids of the runs to compare
 * @typedef {{element: HTMLElement, title: string, destroy(): void, key?(event: KeyboardEvent): void}} View
 */

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const state = /** @type {HTMLElement} */ (document.getElementById("state"));
const keys = /** @type {HTMLDialogElement} */ (document.getElementById("keys"));

const address = () => new URLSearchParams(location.hash.slice(1));
const link = new Link(address().get("token") ?? "");
const store = new Store(link);

/** @type {App} */
const app = {
  link,
  store,
  chosen: new Set(),
  href(wanted = {}) {
    const query = new URLSearchParams({ token: link.token });
    for (const [name, value] of Object.entries(wanted))
      for (const one of [value].flat()) query.append(name, one);
    return `#${query}`;
  },
};

/** @type {View | undefined} */
let view;

/** @param {{first?: boolean}} [options] */
function show({ first = false } = {}) {
  const query = address();
  const token = query.get("token") ?? "";
  if (token !== link.token) return location.reload();
  view?.destroy();
  const ids = query.getAll("id");
  const name = query.get("view");
  view =
    name === "run"
      ? new RunView(app, ids[0] ?? "")
      : name === "compare"
        ? new CompareView(app, ids)
        : name === "sweep"
          ? new SweepView(app, ids[0] ?? "")
          : new RunsView(app);
  document.title = view.title === "" ? "Atlas" : `${view.title} · Atlas`;
  fill(main, view.element);
  scrollTo(0, 0);
  // The link that led here is gone. Keys and screen readers go on at the contents.
  if (!first) main.focus({ preventScroll: true });
}

/** @type {Record<import("./stream.mjs").State, string>} */
const WORDS = {
  connecting: "connecting …",
  live: "live",
  lost: "the dashboard does not answer; start it again with: atlas dashboard",
  refused: "",
};

link.onState = (now) => {
  state.className = `state ${now}`;
  state.textContent = WORDS[now];
  if (now === "refused") refuse();
};

function refuse() {
  view?.destroy();
  view = undefined;
  fill(
    main,
    h(
      "section",
      { class: "notice", role: "alert" },
      h("h1", {}, "This address has no valid token"),
      h(
        "p",
        {},
        "Open the whole address that ",
        h("code", {}, "atlas dashboard"),
        " prints. It ends with #token=…",
      ),
    ),
  );
}

const HELP = [
  ["/", "search the runs"],
  ["↓ ↑ or j k", "next or previous run"],
  ["Enter", "open the run"],
  ["x", "choose the run for a comparison"],
  ["c", "compare the chosen runs"],
  ["Esc", "back to the list"],
  ["?", "show these keys"],
];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = /** @type {HTMLElement} */ (event.target);
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
  if (event.key === "Escape" && !keys.open && typing) return target.blur();
  if (typing || keys.open) return;
  if (event.key === "?") {
    fill(
      keys,
      h("h2", { id: "keys-title" }, "Keys"),
      h(
        "dl",
        {},
        HELP.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what))),
      ),
      h("form", { method: "dialog" }, h("button", {}, "Close")),
    );
    return keys.showModal();
  }
  if (event.key === "Escape" && address().has("view")) {
    location.hash = app.href();
    return;
  }
  view?.key?.(event);
});

document.getElementById("skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the fragment has the token
  main.focus();
});

addEventListener("hashchange", () => show());

const home = /** @type {HTMLAnchorElement} */ (document.getElementById("home"));
home.href = app.href();

store.listeners.add(() => {
  const folder = /** @type {HTMLElement} */ (document.getElementById("folder"));
  folder.textContent = store.folder;
  folder.title = store.folder;
});

try {
  state.textContent = WORDS.connecting;
  show({ first: true });
  await store.load();
  link.open();
} catch (error) {
  if (error instanceof Refused) link.onState("refused");
  else {
    state.className = "state lost";
    state.textContent = error instanceof Error ? error.message : String(error);
  }
}
