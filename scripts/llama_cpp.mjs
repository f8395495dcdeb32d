// Greedy answers of llama.cpp, through node-llama-cpp: the other half of check_llama_cpp.py.
//
//     node llama_cpp.mjs MODULES < request.json > answers.json
//
// request: {"model": FILE.gguf, "dialogues": [[{"role", "content"}, ...], ...], "max_tokens": 64}
// answers: {"engine": "3.21.1", "answers": ["...", ...]}
// Prompts are made by the chat template that the GGUF file holds.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const description = path.resolve(process.argv[2], "node_modules", "node-llama-cpp", "package.json");
const require = createRequire(description);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { getLlama, LlamaLogLevel } = await load("./dist/index.js");
const { Template } = await load("@huggingface/jinja");
const { version } = JSON.parse(fs.readFileSync(description, "utf8"));

const request = JSON.parse(fs.readFileSync(0, "utf8"));
// one thread: with more, idle ones wait awake, and beside another program that takes a hundred times as long
const llama = await getLlama({ gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: request.model });
const context = await model.createContext({ contextSize: 1024 });
const template = new Template(model.fileInfo.metadata.tokenizer.chat_template);

async function answer(messages) {
    const prompt = template.render({ messages, add_generation_prompt: true });
    const sequence = context.getSequence();
    const written = [];
    for await (const token of sequence.evaluate(model.tokenize(prompt, true), { temperature: 0 })) {
        if (model.isEogToken(token) || written.length === request.max_tokens)
            break;
        written.push(token);
    }
    await sequence.dispose();
    return model.detokenize(written).trim();
}

const answers = [];
for (const dialogue of request.dialogues)
    answers.push(await answer(dialogue));
fs.writeFileSync(1, JSON.stringify({ engine: version, answers }));
process.exit(0);
