// @ai-sdk with the web search of its provider, which is named by the first argument: streamed, whole, and a turn later.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, streamText } from 'ai';
import { MODEL, key, main, same, url } from './common.mjs';

const base = { baseURL: `${url}/v1`, apiKey: key };
const [anthropic, openai] = [createAnthropic(base), createOpenAI(base)];
const PROVIDERS = {
  anthropic: { model: anthropic(MODEL), tools: { web_search: anthropic.tools.webSearch_20250305({ maxUses: 5 }) } },
  responses: { model: openai.responses(MODEL), tools: { web_search: openai.tools.webSearch({}) } },
};
globalThis.AI_SDK_LOG_WARNINGS = false;

await main(async ({ prompt, then }) => {
  const settings = { ...PROVIDERS[process.argv[2]], maxRetries: 0, maxOutputTokens: 4000 };
  const streamed = streamText({ ...settings, prompt, onError: () => {} }); // it is in the stream as well
  for await (const part of streamed.fullStream) if (part.type === 'error') throw part.error;
  const whole = await generateText({ ...settings, prompt });
  const sources = (await streamed.sources).map((source) => source.url);
  const kinds = (await streamed.content).map((part) => part.type).filter((type) => type !== 'source');
  same(whole.text, await streamed.text, 'whole and streamed');
  same(whole.sources.map((source) => source.url), sources, 'whole and streamed sources');
  const messages = [{ role: 'user', content: prompt }, ...whole.response.messages, { role: 'user', content: then }];
  const later = await generateText({ ...settings, messages });
  return { text: whole.text, kinds, sources, stop: await streamed.finishReason, then: later.text };
});
