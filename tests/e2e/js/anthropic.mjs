// @anthropic-ai/sdk: messages.stream and its accumulator, against messages.create of the same.
import Anthropic from '@anthropic-ai/sdk';
import { MODEL, PARAMETERS, RESULTS, TOOLS, key, main, same, url } from './common.mjs';

const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });

function content(message) {
  return message.content.map(({ type, text, thinking, name, input }) => ({ type, text, thinking, name, input }));
}

async function ask(body, scenario) {
  const pieces = [];
  const stream = client.messages.stream(body).on('text', (piece) => pieces.push(piece));
  const message = await stream.finalMessage();
  const text = message.content.filter((b) => b.type === 'text').map((b) => b.text).join('');
  same(pieces.join(''), text, 'the pieces and the message');
  if (!scenario.once) same(content(await client.messages.create(body)), content(message), 'whole and streamed');
  return { message, text };
}

await main(async (scenario) => {
  const body = {
    model: MODEL,
    max_tokens: scenario.max_tokens ?? 4000,
    messages: [{ role: 'user', content: scenario.prompt }],
  };
  if (scenario.tools) body.tools = TOOLS.map((name) => ({ name, description: `Does ${name}.`, input_schema: PARAMETERS }));
  if (scenario.stop) body.stop_sequences = scenario.stop;
  if (scenario.thinking) body.thinking = { type: 'enabled', budget_tokens: 2000 };
  if (scenario.schema) body.output_config = { format: { type: 'json_schema', schema: scenario.schema } };
  const { message, text } = await ask(body, scenario);
  const uses = message.content.filter((b) => b.type === 'tool_use');
  const outcome = {
    text,
    thinking: message.content.filter((b) => b.type === 'thinking').map((b) => b.thinking).join(''),
    calls: uses.map(({ name, input }) => ({ name, input })),
    stop: message.stop_reason,
    usage: { input: message.usage.input_tokens, output: message.usage.output_tokens },
    parsed: scenario.schema ? JSON.parse(text) : null,
  };
  if (uses.length) {
    body.messages.push({ role: 'assistant', content: message.content });
    body.messages.push({
      role: 'user',
      content: uses.map(({ id, name }) => ({ type: 'tool_result', tool_use_id: id, content: RESULTS[name] })),
    });
    outcome.then = (await ask(body, scenario)).text;
  }
  return outcome;
});
