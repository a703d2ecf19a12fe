"""What frontends ask of their chat model beside requests is answered in text; what only looks like it buys a picture.

The requests are shortened to the words that tell them: their openings, their form and what they quote.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.parts import CHAT, read_events, streamed, submits
from tests.service import Service, running

pytestmark = pytest.mark.anyio

TALK = "User: Draw a red lighthouse at dawn, please\nAssistant: ![image](x)"
HISTORY = f"### Chat History:\n<chat_history>\n{TALK}\n</chat_history>"
TOPIC = "Draw a red lighthouse at"


def task(words: str, form: str) -> str:
    """Return one of Open WebUI's tasks."""
    return f"### Task:\n{words}\n### Guidelines:\n- Be brief.\n### Output:\nJSON format: {form}\n{HISTORY}"


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    async with running(speed=400) as service:
        yield service


async def ask(service: Service, *messages: tuple[str, str], **values: Any) -> str:
    """Return the text of an answer that cost nothing."""
    before = await submits(service)
    body = {"model": "dall-e-3", "messages": [{"role": role, "content": text} for role, text in messages], **values}
    answer = await service.post(CHAT, body)
    assert answer.status == 200
    assert await submits(service) == before, "a picture was bought"
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert answer.json["usage"]["total_tokens"] > 0
    content: str = choice["message"]["content"]
    assert "![image]" not in content
    return content


@pytest.mark.parametrize(
    ("words", "form", "answer"),
    [
        ("Generate a concise title summarizing the chat history.", '{ "title": "your title" }', {"title": TOPIC}),
        (
            "Generate a concise, 3-5 word title with an emoji summarizing the chat history.",
            '{ "title": "🍪 Perfect Cookies" }',
            {"title": TOPIC},
        ),
        ("Generate 1-3 broad tags categorizing the main themes.", '{ "tags": ["tag1"] }', {"tags": ["Images"]}),
        ("Suggest 3-5 relevant follow-up questions.", '{ "follow_ups": ["Question 1?"] }', {"follow_ups": []}),
        ("Analyze the chat history to determine search queries.", '{ "queries": ["q1"] }', {"queries": []}),
        ("You are an autocompletion system. Continue the text.", '{ "text": "<your_completion>" }', {"text": ""}),
        (
            "Generate a detailed prompt for am image generation task.",
            '{\n    "prompt": "Your detailed description here."\n}',
            {"prompt": "Draw a red lighthouse at dawn, please"},
        ),
    ],
)
async def test_open_webuis_tasks(service: Service, words: str, form: str, answer: dict[str, Any]) -> None:
    assert json.loads(await ask(service, ("user", task(words, form)))) == answer


async def test_open_webuis_other_requests(service: Service) -> None:
    compaction = "### Task:\nSummarize the conversation above that will be compacted out of the active chat context."
    assert await ask(service, ("user", "Draw a boat"), ("assistant", "…"), ("user", compaction)) == "Draw a boat"
    emoji = (
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji.\n\nMessage: ```hi```"
    )
    assert len(await ask(service, ("user", emoji))) == 1
    tools = (
        'Available Tools: [{"name": "search"}]\n\nYour task is to choose and return the correct tool(s) from the list.'
    )
    answer = await ask(service, ("system", tools), ("user", "Query: History:\nUSER: draw\nQuery: draw"))
    assert json.loads(answer) == {"tool_calls": []}


async def test_a_streamed_task(service: Service) -> None:
    before = await submits(service)
    text = task("Generate a concise title.", '{ "title": "x" }')
    values = {"model": "dall-e-3", "messages": [{"role": "user", "content": text}], "stream": True}
    async with streamed(service, CHAT, values) as response:
        events, _ = read_events(await response.read())
    contents = [event.json["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert json.loads("".join(contents)) == {"title": TOPIC}
    assert events[-1].data == "[DONE]"
    assert await submits(service) == before


@pytest.mark.parametrize(
    "prompt",
    [
        f"Provide a concise, 5-word-or-less title for the conversation. Only return it.\n\nConversation:\n{TALK}",
        f"Analyze this conversation and provide:\n1. The language\n2. A concise title in that language\n\n{TALK}",
        f"Please generate a concise title (max 40 characters) for a conversation that starts with:\n{TALK}\n\nTitle:",
        f'Generate a title in less than 6 words for the following message (language: en):\n"""\n{TALK}\n"""',
        f"Write a short title for this chat.\n\n{TALK}",
        f"Please summarize the conversation so far.\n\n{TALK}",
    ],
)
async def test_titles_of_librechat_and_its_like(service: Service, prompt: str) -> None:
    assert await ask(service, ("user", prompt)) == TOPIC


async def test_librechats_structured_title(service: Service) -> None:
    prompt = f"Analyze this conversation and provide:\n1. The language\n2. A concise title\n\n{TALK}"
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "tags": {"type": ["array", "null"]}, "odd": 1},
    }
    form = {"type": "json_schema", "json_schema": {"name": "title", "schema": schema}}
    answer = json.loads(await ask(service, ("user", prompt), response_format=form))
    assert answer["title"] == TOPIC


@pytest.mark.parametrize(
    ("system", "user", "answer"),
    [
        ("You are a professional conversation summarizer. Generate a concise title.", TALK.lower(), TOPIC),
        (
            "You are a professional translator. Translate the input text to de-DE.",
            "A red lighthouse",
            "A red lighthouse",
        ),
        ("You're an assistant who's good at extracting key takeaways from conversations.", TALK, TOPIC),
        ("You are a conversation context compressor. Your task is to create a summary.", TALK, TOPIC),
        ("你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题", TALK, TOPIC),
        ("你是一名精通全世界语言的语言专家，你需要识别用户输入的内容", "{Hola}", "en-US"),
        ("You are an emoji expert who selects the most appropriate emoji.", "a lighthouse", "🎨"),
        ("You are a sidecar that extracts 0-4 quick-reply suggestions.", "Last assistant message:", '{"chips": []}'),
        (
            "Given the following conversation and a follow-up question, rephrase the follow up question.",
            "Follow Up Input: and in blue?, it's standalone query:",
            "and in blue?",
        ),
        ("You are a chat thread titling assistant.", 'User message: "a red lighthouse"', "A red lighthouse"),
    ],
)
async def test_lobechats_chains_and_their_like(service: Service, system: str, user: str, answer: str) -> None:
    assert (await ask(service, ("system", system), ("user", user))).lower() == answer.lower()


async def test_requests_at_the_end_of_a_conversation(service: Service) -> None:
    talk = [("user", "Draw a red lighthouse at dawn, please"), ("assistant", "![x](y)")]
    title = "Please generate a four to five word title summarizing our conversation without any lead-in."
    assert await ask(service, *talk, ("user", title)) == TOPIC
    summary = "Summarize the discussion briefly in 200 words or less to use as a prompt for future context."
    assert await ask(service, *talk, ("system", summary))


@pytest.mark.parametrize(
    "prompt",
    [
        'draw a book cover with the title "Conversations"',
        "generate a title page for a fantasy novel",
        "a chat between two robots",
        "summarize",
        "summarize the discussion of the two philosophers in one picture",
        "create a poster with the title of the conversation in gold letters",
        "Title: The Old Man and the Sea. Tags: sea, boat, fish",
        "a translator at her desk, translating",
        "an emoji of a lighthouse",
        "### Task: paint a lighthouse",
        "User: draw me a sheep",
        'a terminal showing {"title": "hello"}',
        "the task: a knight before a dragon",
    ],
)
async def test_ordinary_requests_buy_a_picture(service: Service, prompt: str) -> None:
    before = await submits(service)
    values = {"model": "dall-e-2", "size": "256x256", "messages": [{"role": "user", "content": prompt}]}
    answer = await service.post(CHAT, values)
    assert "![image]" in answer.json["choices"][0]["message"]["content"]
    assert await submits(service) == before + 1


@pytest.mark.parametrize("end", ["\n\na knight [tag:{0}]", "\n\n<user_query>\na knight [tag:{0}]\n</user_query>\n"])
async def test_a_request_with_documents_is_a_request(service: Service, end: str) -> None:
    tag = f"documents{len(end)}"
    text = (
        "### Task:\nRespond to the user query using the provided context, with citations.\n\n"
        f'<context>\n<source id="1">"title": a chat history {"long " * 9000}</source>\n</context>{end.format(tag)}'
    )
    values = {"model": "dall-e-2", "size": "256x256", "messages": [{"role": "user", "content": text}]}
    answer = await service.post(CHAT, values)
    assert answer.status == 200
    assert (await service.counts(tag))["submits"] == 1
    assert answer.json["usage"]["prompt_tokens"] < 20
    values["messages"] = [{"role": "system", "content": text}, {"role": "user", "content": "a knight in armour"}]
    assert "![image]" in (await service.post(CHAT, values)).json["choices"][0]["message"]["content"]


async def test_endless_blanks_are_read_quickly(service: Service) -> None:
    opening = "### Task: Respond to the user query using the provided context"
    for filler in ("\n" * 30_000, "User:\n" * 5_000, f"{opening}{'<user_query>' * 80_000} fox"):
        values = {"model": "dall-e-2", "size": "256x256", "messages": [{"role": "user", "content": f"{filler}ab cd"}]}
        assert (await service.post(CHAT, values)).status == 200


async def test_a_title_is_answered_though_a_tool_is_forced(service: Service) -> None:
    words = f"Provide a concise, 5-word-or-less title for the conversation\n{TALK}"
    choice = {"type": "function", "function": {"name": "output_title"}}
    assert await ask(service, ("user", words), tool_choice=choice) == TOPIC
