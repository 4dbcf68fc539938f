// What every driver shares. A driver is started with the gateway's URL and key in the environment and the scenarios as
// JSON on stdin; it plays each by its SDK and writes one list of outcomes to stdout.
//
// scenario: {name, prompt, tools, stop, max_tokens, thinking, schema}
// outcome:  {name, text, thinking, calls: [{name, input}], stop, usage: {input, output}, parsed, then, error}
//
// `then` is the text of the second round, where the first ended with calls; `error` is {status, message}.

export const url = process.env.GATEWAY_URL;
export const key = process.env.GATEWAY_KEY;
export const MODEL = 'claude-sonnet-4.5';

export const PARAMETERS = { type: 'object', properties: { path: { type: 'string' } } };
export const TOOLS = ['read_file', 'list_files'];
export const RESULTS = { read_file: 'buy milk', list_files: 'a.txt' };

export async function main(play) {
  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  const outcomes = [];
  for (const scenario of JSON.parse(input)) {
    let outcome;
    try {
      outcome = await play(scenario);
    } catch (error) {
      outcome = { error: told(error) };
    }
    outcomes.push({ name: scenario.name, ...outcome });
  }
  process.stdout.write(JSON.stringify(outcomes));
}

// An SDK's error. A retry wrapper holds the error that counts.
function told(error) {
  const last = error?.lastError ?? error;
  return { status: last?.status ?? last?.statusCode ?? null, message: String(last?.message ?? last) };
}

export function same(one, two, what) {
  const [a, b] = [JSON.stringify(one), JSON.stringify(two)];
  if (a !== b) throw new Error(`${what}: ${a} is not ${b}`);
}
