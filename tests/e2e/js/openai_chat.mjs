// openai: chat.completions.stream and its accumulator, against create of the same; parse for shapes.
import OpenAI from 'openai';
import { MODEL, PARAMETERS, RESULTS, TOOLS, key, main, same, url } from './common.mjs';

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

function plain(message) {
  const calls = (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
  return [message.content, message.reasoning_content ?? '', calls];
}

async function ask(body, scenario) {
  const pieces = [];
  let thinking = '';
  const stream = client.chat.completions
    .stream({ ...body, stream_options: { include_usage: true } })
    .on('content', (piece) => pieces.push(piece))
    .on('chunk', (chunk) => (thinking += chunk.choices[0]?.delta.reasoning_content ?? ''));
  const completion = await stream.finalChatCompletion();
  const { message, finish_reason: stop } = completion.choices[0];
  same(pieces.join(''), message.content ?? '', 'the pieces and the message');
  if (!scenario.once) {
    const whole = (await client.chat.completions.create(body)).choices[0];
    same([...plain(whole.message), whole.finish_reason], [...plain({ ...message, reasoning_content: thinking }), stop], 'whole and streamed');
  }
  return { completion, message, stop, thinking };
}

await main(async (scenario) => {
  const body = { model: MODEL, messages: [{ role: 'user', content: scenario.prompt }] };
  if (scenario.max_tokens) body.max_completion_tokens = scenario.max_tokens;
  if (scenario.tools) {
    body.tools = TOOLS.map((name) => ({
      type: 'function',
      function: { name, description: `Does ${name}.`, parameters: PARAMETERS },
    }));
  }
  if (scenario.stop) body.stop = scenario.stop;
  if (scenario.thinking) body.reasoning_effort = 'high';
  if (scenario.schema) {
    body.response_format = { type: 'json_schema', json_schema: { name: 'shape', strict: true, schema: scenario.schema } };
  }
  const { completion, message, stop, thinking } = await ask(body, scenario);
  const calls = message.tool_calls ?? [];
  const outcome = {
    text: message.content ?? '',
    thinking,
    calls: calls.map((call) => ({ name: call.function.name, input: JSON.parse(call.function.arguments) })),
    stop,
    usage: { input: completion.usage.prompt_tokens, output: completion.usage.completion_tokens },
    parsed: null,
  };
  if (scenario.schema) {
    outcome.parsed = JSON.parse((await client.chat.completions.parse(body)).choices[0].message.content);
    same(JSON.parse(message.content), outcome.parsed, 'parsed and streamed');
  }
  if (calls.length) {
    body.messages.push(message);
    for (const call of calls) {
      body.messages.push({ role: 'tool', tool_call_id: call.id, content: RESULTS[call.function.name] });
    }
    outcome.then = (await ask(body, scenario)).message.content;
  }
  return outcome;
});
