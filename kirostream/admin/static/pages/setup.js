// How to point a tool at this gateway: what to paste where.

import { get } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { field, segments, snippet, worded } from "../ui.js";

const KEY = "YOUR_KEY";

export default function open(page) {
  const address = h("input", { value: location.origin, spellcheck: "false" });
  const model = h("select", {}, h("option", {}, "claude-sonnet-4.5"));
  const body = h("div", { class: "stack" });
  let chosen = "claude-code";
  const names = Object.keys(TOOLS);
  const draw = () => {
    const base = address.value.replace(/\/+$/, "");
    body.replaceChildren(...TOOLS[chosen](base, model.value).flat());
  };
  page.append(
    h("div", { class: "head" }, h("h1", {}, t("page.setup")), h("p", { class: "dim" }, t("setup.help"))),
    h(
      "section",
      { class: "card stack" },
      h("div", { class: "grid two" }, field(t("setup.address"), address), field(t("setup.model"), model)),
      h("p", { class: "dim small" }, t("setup.key", { key: KEY })),
    ),
    segments(t("setup.tool"), names.map((name) => [name, t(`tool.${name}`)]), chosen, (name) => {
      chosen = name;
      draw();
    }),
    h("section", { class: "card" }, body),
  );
  address.addEventListener("input", draw);
  model.addEventListener("change", draw);
  draw();
  get("/models")
    .then((said) => {
      const before = model.value;
      model.replaceChildren(...said.models.map((each) => h("option", { value: each.id }, each.id)));
      if (said.models.some((each) => each.id === before)) model.value = before;
      draw();
    })
    .catch((error) => body.append(h("p", { class: "bad" }, worded(error))));
}

const step = (key, text, values) => [h("p", {}, t(key, values)), text === undefined ? [] : snippet(text, t(key, values))];

const TOOLS = {
  "claude-code": (base, model) => [
    step(
      "setup.shell",
      `export ANTHROPIC_BASE_URL=${base}\nexport ANTHROPIC_AUTH_TOKEN=${KEY}\nclaude --model ${model}`,
    ),
    step(
      "setup.claude.settings",
      JSON.stringify({ env: { ANTHROPIC_BASE_URL: base, ANTHROPIC_AUTH_TOKEN: KEY, ANTHROPIC_MODEL: model } }, null, 2),
    ),
  ],
  codex: (base, model) => [
    step(
      "setup.codex",
      [
        `model = "${model}"`,
        'model_provider = "kirostream"',
        "model_context_window = 200000",
        "",
        "[model_providers.kirostream]",
        'name = "kirostream"',
        `base_url = "${base}/v1"`,
        'env_key = "KIROSTREAM_KEY"',
        'wire_api = "responses"',
        "supports_websockets = true",
      ].join("\n"),
    ),
    step("setup.shell", `export KIROSTREAM_KEY=${KEY}\ncodex`),
  ],
  opencode: (base, model) => [
    step(
      "setup.opencode",
      JSON.stringify(
        {
          $schema: "https://opencode.ai/config.json",
          provider: {
            kirostream: {
              npm: "@ai-sdk/openai-compatible",
              name: "kirostream",
              options: { baseURL: `${base}/v1`, apiKey: KEY },
              models: { [model]: { name: model } },
            },
          },
          model: `kirostream/${model}`,
        },
        null,
        2,
      ),
    ),
  ],
  cline: (base, model) => [
    step("setup.cline"),
    h(
      "dl",
      { class: "facts" },
      [
        ["API Provider", "OpenAI Compatible"],
        ["Base URL", `${base}/v1`],
        ["API Key", KEY],
        ["Model ID", model],
      ].map(([name, value]) => [h("dt", {}, name), h("dd", { class: "mono" }, value)]),
    ),
    snippet(`${base}/v1`, "Base URL"),
  ],
  continue: (base, model) => [
    step(
      "setup.continue",
      [
        "name: kirostream",
        "version: 1.0.0",
        "schema: v1",
        "models:",
        `  - name: ${model}`,
        "    provider: openai",
        `    model: ${model}`,
        `    apiBase: ${base}/v1`,
        `    apiKey: ${KEY}`,
        "    roles: [chat, edit, apply]",
      ].join("\n"),
    ),
  ],
  curl: (base, model) => {
    const messages = '"messages":[{"role":"user","content":"Say hello in three languages."}]';
    const body = `{"model":"${model}","max_tokens":500,"stream":true,${messages}}`;
    return [
      step("setup.anthropic", `curl -N ${base}/v1/messages -H 'x-api-key: ${KEY}' -H 'content-type: application/json' -d '${body}'`),
      step("setup.openai", `curl -N ${base}/v1/chat/completions -H 'authorization: Bearer ${KEY}' -H 'content-type: application/json' -d '${body}'`),
      step("setup.models", `curl ${base}/v1/models -H 'authorization: Bearer ${KEY}'`),
    ];
  },
};
