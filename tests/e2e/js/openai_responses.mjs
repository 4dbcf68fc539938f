// openai: responses.stream and its accumulator, against create of the same; parse for shapes.
import OpenAI from 'openai';
import { MODEL, PARAMETERS, RESULTS, TOOLS, key, main, same, url } from './common.mjs';

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

function plain(output) {
  return output.map((item) => [item.type, item.content?.[0]?.text, item.summary?.[0]?.text, item.name, item.arguments]);
}

async function ask(body, scenario) {
  const pieces = [];
  const numbers = [];
  const stream = client.responses.stream(body);
  for await (const event of stream) {
    numbers.push(event.sequence_number);
    if (event.type === 'response.output_text.delta') pieces.push(event.delta);
    if (event.type === 'response.failed' || event.type === 'error') {
      throw new Error(event.message ?? event.response.error.message);
    }
  }
  same(numbers, numbers.map((_, i) => i), 'sequence numbers');
  const response = await stream.finalResponse();
  same(pieces.join(''), response.output_text, 'the pieces and the text');
  if (!scenario.once) same(plain((await client.responses.create(body)).output), plain(response.output), 'whole and streamed');
  return response;
}

await main(async (scenario) => {
  const body = { model: MODEL, input: [{ role: 'user', content: scenario.prompt }], store: false };
  if (scenario.max_tokens) body.max_output_tokens = scenario.max_tokens;
  if (scenario.tools) {
    body.tools = TOOLS.map((name) => ({
      type: 'function',
      name,
      description: `Does ${name}.`,
      parameters: PARAMETERS,
      strict: false,
    }));
  }
  if (scenario.thinking) body.reasoning = { effort: 'high', summary: 'auto' };
  if (scenario.schema) {
    body.text = { format: { type: 'json_schema', name: 'shape', strict: true, schema: scenario.schema } };
  }
  const response = await ask(body, scenario);
  const calls = response.output.filter((item) => item.type === 'function_call');
  const outcome = {
    text: response.output_text,
    thinking: response.output
      .filter((item) => item.type === 'reasoning')
      .flatMap((item) => (item.content?.length ? item.content : item.summary))
      .map((part) => part.text)
      .join(''),
    calls: calls.map((call) => ({ name: call.name, input: JSON.parse(call.arguments) })),
    stop: response.incomplete_details?.reason ?? response.status,
    usage: { input: response.usage.input_tokens, output: response.usage.output_tokens },
    parsed: null,
  };
  if (scenario.schema) {
    outcome.parsed = (await client.responses.parse(body)).output_parsed;
    same(JSON.parse(response.output_text), outcome.parsed, 'parsed and streamed');
  }
  if (calls.length) {
    const items = response.output.map(({ parsed_arguments, ...item }) => item);
    const results = calls.map((call) => ({
      type: 'function_call_output',
      call_id: call.call_id,
      output: RESULTS[call.name],
    }));
    body.input = [...body.input, ...items, ...results];
    outcome.then = (await ask(body, scenario)).output_text;
  }
  return outcome;
});
