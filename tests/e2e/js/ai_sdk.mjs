// @ai-sdk: streamText with tools that it runs itself, over the provider that is named by the first argument.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { MODEL, PARAMETERS, RESULTS, TOOLS, key, main, same, url } from './common.mjs';

const base = { baseURL: `${url}/v1`, apiKey: key };
const PROVIDERS = {
  anthropic: {
    model: createAnthropic(base)(MODEL),
    thinking: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } } },
  },
  responses: {
    model: createOpenAI(base).responses(MODEL),
    thinking: { openai: { forceReasoning: true, reasoningEffort: 'high', reasoningSummary: 'auto' } },
  },
  chat: { model: createOpenAI(base).chat(MODEL), thinking: { openai: { reasoningEffort: 'high' } } },
  compatible: {
    model: createOpenAICompatible({ ...base, name: 'kirostream', includeUsage: true, supportsStructuredOutputs: true })(MODEL),
    thinking: { kirostream: { reasoningEffort: 'high' } },
  },
};
const provider = PROVIDERS[process.argv[2]];
globalThis.AI_SDK_LOG_WARNINGS = false;

await main(async (scenario) => {
  const settings = {
    model: provider.model,
    prompt: scenario.prompt,
    maxRetries: 0,
    maxOutputTokens: scenario.max_tokens ?? 4000,
    stopSequences: scenario.stop,
    onError: () => {}, // it is in the stream as well
  };
  if (scenario.tools) {
    const made = TOOLS.map((name) => [
      name,
      tool({ description: `Does ${name}.`, inputSchema: jsonSchema(PARAMETERS), execute: async () => RESULTS[name] }),
    ]);
    Object.assign(settings, { tools: Object.fromEntries(made), stopWhen: stepCountIs(2) });
  }
  if (scenario.thinking) settings.providerOptions = provider.thinking;
  if (scenario.schema) settings.output = Output.object({ schema: jsonSchema(scenario.schema) });

  const pieces = [];
  const result = streamText(settings);
  for await (const part of result.fullStream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'text-delta') pieces.push(part.text);
  }
  const steps = await result.steps;
  const [first, second] = steps;
  same(pieces.join(''), steps.map((step) => step.text).join(''), 'the pieces and the text');
  if (!scenario.once) {
    const whole = (await generateText({ ...settings, onError: undefined })).steps;
    same(
      whole.map((step) => [step.text, step.reasoningText ?? '', step.finishReason, step.toolCalls.map((c) => c.input)]),
      steps.map((step) => [step.text, step.reasoningText ?? '', step.finishReason, step.toolCalls.map((c) => c.input)]),
      'whole and streamed',
    );
  }
  return {
    text: first.text,
    thinking: first.reasoningText ?? '',
    calls: first.toolCalls.map(({ toolName, input }) => ({ name: toolName, input })),
    stop: first.finishReason,
    usage: { input: first.usage.inputTokens, output: first.usage.outputTokens },
    parsed: scenario.schema ? await result.output : null,
    then: second?.text,
  };
});
