// Accounts: how each is, and everything that can be done to it.

import { get, post, remove } from "../api.js";
import { Region, h, icon } from "../dom.js";
import { day, moment, number, seconds, span, t, tOr } from "../i18n.js";
import { dialog, doing, field, repeatedly, say, segments, sure, worded } from "../ui.js";
import { stateKind } from "./words.js";

const STALE = 600;

export default function open(page) {
  const cards = h("div", { class: "grid cards" });
  const summary = h("p", { class: "dim", "aria-live": "polite" });
  page.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, t("page.accounts")),
      summary,
      h("span", { class: "grow" }),
      h("button", { type: "button", onclick: () => adding("import", look) }, t("accounts.import")),
      h("button", { type: "button", class: "primary", onclick: () => adding("login", look) }, icon("plus"), t("accounts.add")),
    ),
    cards,
  );
  const asked = new Set();
  const all = new Region(cards, (accounts) => (accounts.length ? accounts.map((each) => card(each, look)) : nobody(look)));

  async function look(signal) {
    const said = await get("/accounts", signal);
    const ready = said.accounts.filter((each) => each.state === "ready").length;
    summary.textContent = t("accounts.summary", { ready, all: said.accounts.length });
    all.update(said.accounts.map(steady));
    for (const each of said.accounts) {
      const fresh = each.quota && Date.now() / 1000 - each.quota.asked_at < STALE;
      if (each.enabled && each.state !== "needs login" && !fresh && !asked.has(each.id)) {
        asked.add(each.id);
        get(`/accounts/${encodeURIComponent(each.id)}/quota`)
          .then(() => look())
          .catch(() => {});
      }
    }
  }
  return repeatedly(look, 3000);
}

/** An account without what changes every second, so that its card is left alone. */
function steady(account) {
  const left = account.token_expires_in;
  return { ...account, token_expires_in: left === null ? null : Math.round(left / 60) * 60 };
}

function nobody(look) {
  return h(
    "div",
    { class: "card empty stack" },
    h("p", {}, t("accounts.none.long")),
    h("div", {}, h("button", { type: "button", class: "primary", onclick: () => adding("login", look) }, t("accounts.add"))),
  );
}

function card(account, look) {
  const at = `/accounts/${encodeURIComponent(account.id)}`;
  const note = h("p", { class: "said", role: "status", hidden: true });
  const tell = (words, kind = "dim") => {
    note.className = `said ${kind}`;
    note.textContent = words;
    note.hidden = false;
  };
  const verb = (name, act, attributes = {}) =>
    doing(t(`verb.${name}`), act, { "data-focus": `${account.id} ${name}`, "aria-label": `${t(`verb.${name}`)}: ${account.label}`, ...attributes });
  const out = account.until ? t("account.until", { when: moment(account.until) }) : "";
  return h(
    "article",
    { class: `card account${account.enabled ? "" : " off"}`, "data-account": account.id },
    h(
      "div",
      { class: "row between" },
      h("h2", { class: "name grow clip", title: account.label }, account.label),
      h("span", { class: `pill ${stateKind(account.state)}` }, t(`state.${account.state}`)),
    ),
    h("p", { class: "dim small clip", title: account.source }, [account.provider || account.auth, account.region, account.source].filter(Boolean).join(" · ")),
    account.state !== "ready" && (account.why || out)
      ? h("p", { class: "small" }, [tOr(`why.${account.why}`, account.why), out].filter(Boolean).join(" "))
      : null,
    quota(account.quota),
    h(
      "dl",
      { class: "figures" },
      [
        [t("account.requests"), number(account.requests)],
        [t("account.in_flight"), number(account.in_flight)],
        [t("account.token"), account.refreshing ? t("account.refreshing") : account.token_expires_in === null ? "–" : account.token_expires_in <= 0 ? t("account.ended") : span(account.token_expires_in)],
      ].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
    account.token_error ? h("p", { class: "said bad" }, account.token_error) : null,
    account.last_error
      ? h("p", { class: "said dim" }, h("span", { class: "bad" }, t("account.last_error")), " ", account.last_error.at ? `${moment(account.last_error.at)}: ` : "", account.last_error.message)
      : null,
    account.blocked_models.length ? h("p", { class: "said dim" }, t("account.blocked", { models: account.blocked_models.join(", ") })) : null,
    note,
    h(
      "div",
      { class: "verbs" },
      account.enabled
        ? [
            verb("test", async () => {
              tell(t("account.testing"));
              const done = await post(`${at}/test`);
              if (done.ok) tell(t("account.works", { time: seconds(done.seconds), n: done.models.length }), "good");
              else tell(t("account.fails", { why: done.error }), "bad");
            }),
            verb("refresh", async () => {
              await post(`${at}/refresh`);
              tell(t("account.refreshed"), "good");
              await look();
            }),
            verb("quota", async () => {
              await get(`${at}/quota`);
              await look();
            }),
          ]
        : null,
      ["cooling", "exhausted", "suspended", "needs login"].includes(account.state)
        ? verb("clear", async () => {
            await post(`${at}/clear`);
            await look();
          })
        : null,
      account.enabled
        ? verb("disable", async () => {
            await post(`${at}/disable`);
            await look();
          })
        : verb("enable", async () => {
            await post(`${at}/enable`);
            await look();
          }, { class: "primary" }),
      account.kept
        ? verb("remove", async () => {
            if (!(await sure(t("account.remove.sure", { name: account.label }), t("verb.remove")))) return;
            await remove(at);
            say(t("account.removed", { name: account.label }));
            await look();
          }, { class: "danger" })
        : null,
    ),
  );
}

function quota(said) {
  if (!said) return h("p", { class: "dim small" }, t("quota.unknown"));
  if (!said.limit) return h("p", { class: "dim small" }, said.plan || t("quota.nothing"));
  const part = Math.min(said.used / said.limit, 1);
  const bar = h("div", {});
  bar.style.width = `${part * 100}%`;
  return h(
    "div",
    { class: "stack small" },
    h(
      "div",
      { class: "row between" },
      h("span", {}, h("b", {}, number(said.used, 1)), " / ", number(said.limit), " ", t("quota.credits")),
      h("span", { class: "dim" }, said.plan),
    ),
    h(
      "div",
      {
        class: `meter ${part > 0.95 ? "bad" : part > 0.8 ? "warn" : ""}`,
        role: "meter",
        "aria-valuemin": "0",
        "aria-valuemax": String(said.limit),
        "aria-valuenow": String(said.used),
        "aria-label": t("quota.used"),
      },
      bar,
    ),
    h("div", { class: "row between dim" }, h("span", {}, t("quota.left", { n: number(said.left, 1) })), h("span", {}, said.resets_at ? t("quota.resets", { day: day(said.resets_at) }) : "")),
  );
}

/** The dialog of all ways to an account. */
function adding(way, look) {
  let over = () => {};
  dialog(
    t("accounts.add"),
    (close) => {
      const body = h("div", { class: "stack" });
      const ways = { login: signingIn, secret: bringing, file: pointing, import: importing };
      const choose = (name) => {
        over();
        over = () => {};
        body.replaceChildren(
          ...[ways[name]({
            close,
            done: async (words) => {
              close();
              say(words);
              await look();
            },
            until: (end) => (over = end),
            body,
          })].flat(),
        );
      };
      choose(way);
      return [segments(t("add.how"), Object.keys(ways).map((name) => [name, t(`add.${name}`)]), way, choose), body];
    },
    () => over(),
  );
}

function form(build, submit, words, close) {
  const trouble = h("p", { class: "bad small", role: "alert" });
  const send = h("button", { type: "submit", class: "primary" }, words);
  return h(
    "form",
    {
      class: "stack",
      onsubmit: async (event) => {
        event.preventDefault();
        send.disabled = true;
        trouble.textContent = "";
        try {
          await submit();
        } catch (error) {
          trouble.textContent = worded(error);
        } finally {
          send.disabled = false;
        }
      },
    },
    build,
    trouble,
    h("div", { class: "foot row" }, h("span", { class: "grow" }), h("button", { type: "button", onclick: close }, t("cancel")), send),
  );
}

function signingIn({ close, done, until, body }) {
  const method = h(
    "select",
    { name: "method" },
    ["google", "github", "builder_id", "identity_center"].map((each) => h("option", { value: each }, t(`method.${each}`))),
  );
  const startUrl = h("input", { type: "url", placeholder: "https://d-1234567890.awsapps.com/start" });
  const region = h("input", { value: "us-east-1" });
  const label = h("input", { maxlength: "200" });
  const more = h("div", { class: "stack", hidden: true }, field(t("add.start_url"), startUrl), field(t("add.region"), region));
  method.addEventListener("change", () => (more.hidden = method.value !== "identity_center"));
  return form(
    [h("p", { class: "dim small" }, t("add.login.help")), field(t("add.method"), method), more, field(t("add.label"), label)],
    async () => {
      const begun = await post("/logins", { method: method.value, start_url: more.hidden ? "" : startUrl.value, region: region.value, label: label.value });
      waiting(begun, { close, done, until, body });
    },
    t("add.login.begin"),
    close,
  );
}

function waiting(begun, { close, done, until, body }) {
  const at = `/logins/${encodeURIComponent(begun.id)}`;
  const left = h("p", { class: "dim small", role: "status" });
  let state = begun.state;
  body.replaceChildren(
    h("p", {}, t("login.compare")),
    h("div", { class: "code", "aria-label": t("login.code") }, begun.code),
    h("p", {}, h("a", { class: "button", href: begun.url, target: "_blank", rel: "noreferrer noopener" }, t("login.open"))),
    h("p", { class: "mono small dim" }, begun.url),
    left,
    h("div", { class: "foot" }, h("button", { type: "button", onclick: close }, t("login.give_up"))),
  );
  const stop = repeatedly(async (signal) => {
    const said = await get(at, signal);
    state = said.state;
    if (state === "pending") {
      left.textContent = [t("login.left", { time: span(said.left) }), said.trouble].filter(Boolean).join(" ");
      return;
    }
    stop();
    if (state === "done") await done(t(said.replaced ? "login.replaced" : "login.done", { name: said.label }));
    else {
      left.className = "bad small";
      left.textContent = said.error || t("login.cancelled");
    }
  }, 1000);
  until(() => {
    stop();
    if (state === "pending") remove(at).catch(() => {});
  });
}

function bringing({ close, done }) {
  const kind = h("select", {}, h("option", { value: "refresh_token" }, t("add.refresh_token")), h("option", { value: "api_key" }, t("add.api_key")));
  const value = h("input", { type: "password", required: true, autocomplete: "off" });
  const region = h("input", { value: "us-east-1" });
  const label = h("input", { maxlength: "200" });
  return form(
    [h("p", { class: "dim small" }, t("add.secret.help")), field(t("add.kind"), kind), field(t("add.value"), value), field(t("add.region"), region), field(t("add.label"), label)],
    async () => added(await post("/accounts", { kind: kind.value, value: value.value, region: region.value, label: label.value }), done),
    t("accounts.add"),
    close,
  );
}

function pointing({ close, done }) {
  const kind = h("select", {}, h("option", { value: "ide" }, t("add.ide")), h("option", { value: "cli" }, t("add.cli")));
  const path = h("input", { required: true, placeholder: "~/.aws/sso/cache/kiro-auth-token.json" });
  const label = h("input", { maxlength: "200" });
  return form(
    [h("p", { class: "dim small" }, t("add.file.help")), field(t("add.kind"), kind), field(t("add.path"), path), field(t("add.label"), label)],
    async () => added(await post("/accounts", { kind: kind.value, value: path.value, label: label.value }), done),
    t("accounts.add"),
    close,
  );
}

function importing({ close, done }) {
  const text = h("textarea", { required: true, spellcheck: "false", "aria-label": t("add.text") });
  const file = h("input", { type: "file" });
  const format = h(
    "select",
    {},
    ["", "account-manager", "kiro-go", "kiro-gateway", "kiro-rs", "cards", "csv", "env"].map((each) => h("option", { value: each }, each || t("add.detect"))),
  );
  file.addEventListener("change", async () => {
    if (file.files[0]) text.value = await file.files[0].text();
  });
  return form(
    [h("p", { class: "dim small" }, t("add.import.help")), field(t("add.choose"), file), field(t("add.text"), text), field(t("add.format"), format)],
    async () => {
      const said = await post("/accounts/import", { text: text.value, format: format.value });
      const words = t("import.done", { format: said.format, added: said.added.length, replaced: said.replaced.length });
      await done([words, ...said.trouble].join(" "));
    },
    t("accounts.import"),
    close,
  );
}

async function added(said, done) {
  await done(t(said.known ? "account.known" : "account.added", { name: said.account.label }));
}
