# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, initializedcheck=False
"""What is read of a large request at the speed of its bytes. `_scan.pyi` documents it.

Theory. An agent's request is a megabyte of strings that go from one JSON document into another as they are. So it is
looked through, not decoded: `_json.h` goes over every byte, finds that it is JSON in UTF-8, and where each string
begins and ends. Objects are made of what is usual, with their texts as JSON.

**Nothing is decided here.** Each function says what its twin in Python would say, or None: then the twin has to look,
which knows every other form, and words every refusal. So what is rare need not be known here (a key with an escape in
it, a member that is there twice), and a doubt is answered with None. The twins are the oracle in the tests: the readers
of `dialects/anthropic/request.py`, `Fit` in `filters/tool_schemas.py`, `filters/outline.py`, the writer of
`dialects/kiro/request.py`.

**A text stays JSON** (`Text.literal`) where its escapes are the ones that our own writer, msgspec's, would choose. Then
what goes upstream is the same as if it had been decoded and encoded again, and takes one `memcpy`. Others are decoded.

**Nothing long is gone over twice.** `split` has to see every byte, to know that this is JSON and where the messages end.
On its way it notes the ends of long strings, and of arrays and objects near the root (`json_notes`): who reads a
message of it later jumps.

**Memory safety.** The text is a bytes object, which ends with a NUL (see `_json.h`). Nothing is taken for granted that
another function has looked at before.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

import os
from types import MemberDescriptorType

import msgspec

from kirostream.turn.request import Image, Message, Role, Text, Thought, Tool, ToolCall, ToolResult

cdef extern from "_json.h" nogil:
    enum:
        JSON_ESCAPES
        JSON_FOREIGN
    ctypedef struct json_long:
        const uint8_t* at
    ctypedef struct json_notes:
        json_long* notes
        size_t count
    ctypedef struct json_text:
        const uint8_t* end
        json_notes* taken
        int shallow
        const json_long* next
        const json_long* last
    const uint8_t* json_space(const uint8_t* at)
    const uint8_t* json_plain(const uint8_t* at, const uint8_t* end)
    const uint8_t* json_string(const uint8_t* at, const uint8_t* end, unsigned* holds)
    const uint8_t* json_known_string(json_text* text, const uint8_t* at, unsigned* holds)
    const uint8_t* json_value(json_text* text, const uint8_t* at, int depth, bint modest)
    const uint8_t* json_modest_number(const uint8_t* at)

cdef extern from "_digest.h" nogil:
    enum:
        DIGEST_FOLDS
        DIGEST_KEYS
    uint64_t digest(const uint8_t* at, size_t size, const uint64_t* keys)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_new)(PyTypeObject*, object, void*)
    void PyObject_GC_UnTrack(void* of)
    int _PyBytes_Resize(PyObject** of, Py_ssize_t size) except -1
    bint PyUnicode_IS_ASCII(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member

cdef enum:
    DEPTH = 100  # jsontext.MAX_DEPTH
    NEAR = 4  # levels: an item, its list of blocks, a block, the input of a call

ctypedef struct Span:
    const uint8_t* at  # the first byte of a value; NULL: it is not there
    const uint8_t* end  # behind its last
    unsigned holds  # of a string: see _json.h

cdef object decode_text = msgspec.json.Decoder(str).decode
cdef object encode_text = msgspec.json.Encoder().encode
cdef object TEXT_BLOCK = Text, IMAGE = Image, CALL = ToolCall, RESULT = ToolResult, THOUGHT = Thought
cdef object MESSAGE = Message, TOOL = Tool
cdef object USER = Role.USER, ASSISTANT = Role.ASSISTANT, SYSTEM = Role.SYSTEM
cdef str PLACEHOLDER = "DeferredToolPlaceholder"


cdef inline bytes cut(const uint8_t* at, const uint8_t* end):
    return PyBytes_FromStringAndSize(<const char*>at, end - at)


# --- Objects of the turn ----------------------------------------------------------------------------------------------

cdef inline object new(object kind):
    """An object of a frozen class, its fields not set yet."""
    return (<PyTypeObject*>kind).tp_new(<PyTypeObject*>kind, (), NULL)


cdef Py_ssize_t slot(object kind, str name) except -1:
    """Where the objects of a class with slots hold a field."""
    member = vars(kind)[name]
    if type(member) is not MemberDescriptorType:
        raise TypeError(f"{kind.__name__}.{name} is no slot")
    return (<PyMemberDescrObject*>member).d_member.offset


cdef inline PyObject** place(object of, Py_ssize_t slot) noexcept:
    return <PyObject**>(<char*><PyObject*>of + slot)


cdef inline void put(object of, Py_ssize_t slot, object value) noexcept:
    """Set a field of a new object."""
    Py_INCREF(value)
    place(of, slot)[0] = <PyObject*>value


cdef inline object held(object of, Py_ssize_t slot):
    """A field of an object of this very class; None where it is not set."""
    cdef PyObject* value = place(of, slot)[0]
    return None if value == NULL else <object>value


cdef Py_ssize_t TEXT_PHASE = slot(Text, "phase"), TEXT_LITERAL = slot(Text, "literal")
cdef Py_ssize_t THOUGHT_TEXT = slot(Thought, "text"), THOUGHT_SIGNATURE = slot(Thought, "signature")
cdef Py_ssize_t THOUGHT_REDACTED = slot(Thought, "redacted")
cdef Py_ssize_t CALL_ID = slot(ToolCall, "id"), CALL_NAME = slot(ToolCall, "name")
cdef Py_ssize_t CALL_ARGUMENTS = slot(ToolCall, "arguments")
cdef Py_ssize_t RESULT_ID = slot(ToolResult, "call_id"), RESULT_CONTENT = slot(ToolResult, "content")
cdef Py_ssize_t RESULT_IS_ERROR = slot(ToolResult, "is_error")
cdef Py_ssize_t IMAGE_TYPE = slot(Image, "media_type"), IMAGE_DATA = slot(Image, "data")
cdef Py_ssize_t TOOL_NAME = slot(Tool, "name"), TOOL_DESCRIPTION = slot(Tool, "description")
cdef Py_ssize_t TOOL_SCHEMA = slot(Tool, "schema"), TOOL_KEPT = slot(Tool, "kept")
cdef Py_ssize_t TOOL_LITERAL = slot(Tool, "literal")
cdef Py_ssize_t MESSAGE_ROLE = slot(Message, "role"), MESSAGE_CONTENT = slot(Message, "content")
cdef Py_ssize_t MESSAGE_KEPT = slot(Message, "kept")


cdef inline object settled(object made):
    """A block that is whole. It holds nothing that could lead back to it, so the collector need not go over it.

    There are some thousands in a request, and they stay for minutes where there is a memory.
    """
    PyObject_GC_UnTrack(<void*>made)
    return made


cdef inline bint is_string(const Span* span) noexcept nogil:
    return span.at != NULL and span.at[0] == c'"'


cdef inline bint is_null(const Span* span) noexcept nogil:
    return span.at == NULL or span.at[0] == c"n"


cdef inline bint is_flag(const Span* span) noexcept nogil:
    """Whether it is a boolean, null, or not there."""
    return is_null(span) or span.at[0] == c"t" or span.at[0] == c"f"


cdef inline bint says(const Span* span, const char* word, Py_ssize_t size) noexcept nogil:
    """Whether a string is this word."""
    return span.end - span.at == size + 2 and memcmp(span.at + 1, word, size) == 0


cdef inline str text_of(const Span* span):
    """What a string says."""
    if span.holds & JSON_ESCAPES:
        return decode_text(cut(span.at, span.end))
    return PyUnicode_DecodeUTF8(<const char*>span.at + 1, span.end - span.at - 2, NULL)


cdef object make_text(const Span* span):
    cdef object made
    if span.holds & JSON_FOREIGN:
        return Text(text_of(span))
    made = new(TEXT_BLOCK)
    put(made, TEXT_PHASE, "")
    put(made, TEXT_LITERAL, cut(span.at, span.end))
    return settled(made)


cdef object make_thought(str text, str signature, str redacted):
    cdef object made = new(THOUGHT)
    put(made, THOUGHT_TEXT, text)
    put(made, THOUGHT_SIGNATURE, signature)
    put(made, THOUGHT_REDACTED, redacted)
    return settled(made)


cdef object make_call(const Span* call_id, const Span* name, const Span* arguments):
    cdef object made = new(CALL)
    put(made, CALL_ID, text_of(call_id))
    put(made, CALL_NAME, text_of(name))
    put(made, CALL_ARGUMENTS, cut(arguments.at, arguments.end))
    return settled(made)


cdef object make_result(const Span* call_id, tuple content, bint is_error):
    cdef object made = new(RESULT)
    put(made, RESULT_ID, text_of(call_id))
    put(made, RESULT_CONTENT, content)
    put(made, RESULT_IS_ERROR, is_error)
    return settled(made)


cdef object make_tool(str name, const Span* description, bytes schema):
    cdef object made = new(TOOL)
    put(made, TOOL_NAME, name)
    put(made, TOOL_SCHEMA, schema)
    put(made, TOOL_KEPT, {})
    if is_null(description) or description.holds & JSON_FOREIGN or description.end - description.at == 2:
        put(made, TOOL_DESCRIPTION, "" if is_null(description) else text_of(description))
        put(made, TOOL_LITERAL, None)
    else:
        put(made, TOOL_LITERAL, cut(description.at, description.end))
    return made


cdef object make_message(object role, tuple content):
    cdef object made = new(MESSAGE)
    put(made, MESSAGE_ROLE, role)
    put(made, MESSAGE_CONTENT, content)
    put(made, MESSAGE_KEPT, {})
    return made


# --- Members ----------------------------------------------------------------------------------------------------------

cdef enum:  # members that are known
    OTHER = -1
    ROLE
    TYPE
    TEXT
    DATA
    NAME
    ID
    INPUT
    SOURCE
    CONTENT
    THINKING
    IS_ERROR
    SIGNATURE
    MEDIA_TYPE
    TOOL_USE_ID
    DESCRIPTION
    INPUT_SCHEMA
    DEFER_LOADING
    MEMBERS


cdef int member(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    if size == 2:
        return ID if memcmp(at, b"id", 2) == 0 else OTHER
    if size == 4:
        if memcmp(at, b"type", 4) == 0:
            return TYPE
        if memcmp(at, b"text", 4) == 0:
            return TEXT
        if memcmp(at, b"name", 4) == 0:
            return NAME
        if memcmp(at, b"data", 4) == 0:
            return DATA
        return ROLE if memcmp(at, b"role", 4) == 0 else OTHER
    if size == 5:
        return INPUT if memcmp(at, b"input", 5) == 0 else OTHER
    if size == 6:
        return SOURCE if memcmp(at, b"source", 6) == 0 else OTHER
    if size == 7:
        return CONTENT if memcmp(at, b"content", 7) == 0 else OTHER
    if size == 8:
        if memcmp(at, b"thinking", 8) == 0:
            return THINKING
        return IS_ERROR if memcmp(at, b"is_error", 8) == 0 else OTHER
    if size == 9:
        return SIGNATURE if memcmp(at, b"signature", 9) == 0 else OTHER
    if size == 10:
        return MEDIA_TYPE if memcmp(at, b"media_type", 10) == 0 else OTHER
    if size == 11:
        if memcmp(at, b"tool_use_id", 11) == 0:
            return TOOL_USE_ID
        return DESCRIPTION if memcmp(at, b"description", 11) == 0 else OTHER
    if size == 12:
        return INPUT_SCHEMA if memcmp(at, b"input_schema", 12) == 0 else OTHER
    if size == 13:
        return DEFER_LOADING if memcmp(at, b"defer_loading", 13) == 0 else OTHER
    return OTHER


cdef const uint8_t* key(json_text* text, const uint8_t* at, Span* found) noexcept nogil:
    """To the value of the member whose key begins at `at`; NULL if it is none, or has an escape."""
    found.at = at
    found.holds = 0
    if at[0] != c'"':
        return NULL
    at = json_string(at + 1, text.end, &found.holds)
    if at == NULL or found.holds & JSON_ESCAPES:
        return NULL
    found.end = at
    at = json_space(at)
    return json_space(at + 1) if at[0] == c":" else NULL


cdef inline const uint8_t* known(json_text* text, const uint8_t* at, Span* found, int* which) noexcept nogil:
    """The same, telling which member it is. NULL also if it was `found` before."""
    cdef Span name
    at = key(text, at, &name)
    if at != NULL:
        which[0] = member(name.at + 1, name.end - name.at - 2)
        if which[0] != OTHER and found[which[0]].at != NULL:
            return NULL
    return at


cdef inline const uint8_t* value(json_text* text, const uint8_t* at, Span* into) noexcept nogil:
    """Past a value, which is noted."""
    into.at = at
    into.holds = 0
    if at[0] == c'"':
        into.end = json_known_string(text, at + 1, &into.holds)
    else:
        into.end = json_value(text, at, DEPTH, False)
    return into.end


cdef inline const uint8_t* onward(const uint8_t* at, uint8_t close, bint* ends) noexcept nogil:
    """From behind a value to the next, or behind the end of what it stands in."""
    at = json_space(at)
    ends[0] = at[0] == close
    if ends[0]:
        return at + 1
    return json_space(at + 1) if at[0] == c"," else NULL


cdef const uint8_t* members(json_text* text, const uint8_t* at, Span* found) noexcept nogil:
    """Past the object at `at`, noting the values of members that are known. NULL for one without members too."""
    cdef int which = OTHER
    cdef Span rest
    cdef bint ends = False
    memset(found, 0, MEMBERS * sizeof(Span))
    if at[0] != c"{":
        return NULL
    at = json_space(at + 1)
    while not ends:
        at = known(text, at, found, &which)
        if at == NULL:
            return NULL
        at = value(text, at, &rest if which == OTHER else &found[which])
        if at == NULL:
            return NULL
        at = onward(at, c"}", &ends)
        if at == NULL:
            return NULL
    return at


# --- A message --------------------------------------------------------------------------------------------------------

cdef const uint8_t* blocks(json_text* text, const uint8_t* at, list into, bint inner) except? NULL:
    """Past the array of blocks at `at`, which are made. NULL where one is not usual."""
    cdef bint ends
    at = json_space(at + 1)
    if at[0] == c"]":
        return at + 1
    ends = False
    while not ends:
        at = block(text, at, into, inner)
        if at == NULL:
            return NULL
        at = onward(at, c"]", &ends)
        if at == NULL:
            return NULL
    return at


cdef const uint8_t* block(json_text* text, const uint8_t* at, list into, bint inner) except? NULL:
    """The same for one block. `inner` is one of a result: a text or an image."""
    cdef Span found[MEMBERS]
    cdef Span source[MEMBERS]
    cdef Span rest
    cdef Span* kind = &found[TYPE]
    cdef int which = OTHER
    cdef bint ends = False
    cdef list parts = None
    memset(found, 0, sizeof(found))
    if at[0] != c"{":
        return NULL
    at = json_space(at + 1)
    while not ends:
        at = known(text, at, found, &which)
        if at == NULL:
            return NULL
        if which == CONTENT and at[0] == c"[" and not inner:
            found[CONTENT].at = at
            parts = []
            at = blocks(text, at, parts, True)
        elif which == SOURCE and at[0] == c"{":
            found[SOURCE].at = at
            at = members(text, at, source)
        else:
            at = value(text, at, &rest if which == OTHER else &found[which])
        if at == NULL:
            return NULL
        at = onward(at, c"}", &ends)
        if at == NULL:
            return NULL

    if not is_string(kind):
        return NULL
    if says(kind, b"text", 4):
        if not is_string(&found[TEXT]):
            return NULL
        if found[TEXT].end - found[TEXT].at > 2:
            into.append(make_text(&found[TEXT]))
        return at
    if says(kind, b"image", 5):
        if found[SOURCE].at == NULL or found[SOURCE].at[0] != c"{" or not is_picture(source):
            return NULL
        into.append(Image(text_of(&source[MEDIA_TYPE]), text_of(&source[DATA])))
        return at
    if inner:
        return NULL
    if says(kind, b"tool_use", 8):
        if not is_string(&found[ID]) or not is_string(&found[NAME]):
            return NULL
        if found[INPUT].at == NULL or found[INPUT].at[0] != c"{":
            return NULL
        into.append(make_call(&found[ID], &found[NAME], &found[INPUT]))
        return at
    if says(kind, b"tool_result", 11):
        if not is_string(&found[TOOL_USE_ID]) or not is_flag(&found[IS_ERROR]):
            return NULL
        if parts is None:
            if not is_string(&found[CONTENT]):
                return NULL
            parts = [make_text(&found[CONTENT])] if found[CONTENT].end - found[CONTENT].at > 2 else []
        ends = found[IS_ERROR].at != NULL and found[IS_ERROR].at[0] == c"t"
        into.append(make_result(&found[TOOL_USE_ID], tuple(parts), ends))
        return at
    if says(kind, b"thinking", 8):
        if not is_string(&found[THINKING]) or not (found[SIGNATURE].at == NULL or is_string(&found[SIGNATURE])):
            return NULL
        signature = text_of(&found[SIGNATURE]) if found[SIGNATURE].at != NULL else ""
        into.append(make_thought(text_of(&found[THINKING]), signature, ""))
        return at
    if says(kind, b"redacted_thinking", 17):
        if not is_string(&found[DATA]):
            return NULL
        into.append(make_thought("", "", text_of(&found[DATA])))
        return at
    return NULL


cdef bint is_picture(const Span* source) noexcept nogil:
    """Whether the source is an image that is in the request."""
    cdef const Span* media = &source[MEDIA_TYPE]
    cdef const Span* data = &source[DATA]
    if source[TYPE].at != NULL and not (is_string(&source[TYPE]) and says(&source[TYPE], b"base64", 6)):
        return False
    if not is_string(media) or media.end - media.at < 8 or memcmp(media.at + 1, b"image/", 6) != 0:
        return False
    return is_string(data) and data.end - data.at > 2


cdef object message(json_text* text, const uint8_t* at, const uint8_t* end):
    """The message from `at` to `end`, None if it is not usual."""
    cdef Span found[MEMBERS]
    cdef Span rest
    cdef int which = OTHER
    cdef bint ends = False
    cdef list content = []
    memset(found, 0, sizeof(found))
    if at[0] != c"{":
        return None
    at = json_space(at + 1)
    while not ends:
        at = known(text, at, found, &which)
        if at == NULL:
            return None
        if which == CONTENT and at[0] == c"[":
            found[CONTENT].at = at
            at = blocks(text, at, content, False)
        else:
            at = value(text, at, &rest if which == OTHER else &found[which])
        if at == NULL:
            return None
        at = onward(at, c"}", &ends)
        if at == NULL:
            return None
    if at != end or not is_string(&found[ROLE]) or found[CONTENT].at == NULL:
        return None
    if found[CONTENT].at[0] != c"[":
        if not is_string(&found[CONTENT]):
            return None
        if found[CONTENT].end - found[CONTENT].at > 2:
            content.append(make_text(&found[CONTENT]))
    if says(&found[ROLE], b"user", 4):
        return make_message(USER, tuple(content))
    if says(&found[ROLE], b"assistant", 9):
        return make_message(ASSISTANT, tuple(content))
    return make_message(SYSTEM, tuple(content)) if says(&found[ROLE], b"system", 6) else None


cdef object tool(json_text* text, const uint8_t* at, const uint8_t* end):
    """The tool from `at` to `end`, None if it is not usual."""
    cdef Span found[MEMBERS]
    cdef str name
    if members(text, at, found) != end:
        return None
    if not is_string(&found[NAME]) or found[NAME].end - found[NAME].at == 2 or not is_flag(&found[DEFER_LOADING]):
        return None
    if not (is_null(&found[TYPE]) or is_string(&found[TYPE])):
        return None
    if not (is_null(&found[DESCRIPTION]) or is_string(&found[DESCRIPTION])):
        return None
    if found[INPUT_SCHEMA].at == NULL or found[INPUT_SCHEMA].at[0] != c"{":
        return None
    name = text_of(&found[NAME])
    if name == PLACEHOLDER:
        return None
    return make_tool(name, &found[DESCRIPTION], cut(found[INPUT_SCHEMA].at, found[INPUT_SCHEMA].end))


cdef inline const uint8_t* open_text(json_text* text, bytes raw) noexcept:
    """Where it begins."""
    memset(text, 0, sizeof(json_text))
    text.end = <const uint8_t*>PyBytes_AS_STRING(raw) + PyBytes_GET_SIZE(raw)
    return <const uint8_t*>PyBytes_AS_STRING(raw)


def read_message(bytes raw not None):
    cdef json_text text
    cdef const uint8_t* at = open_text(&text, raw)
    return message(&text, at, text.end)


# --- A body -----------------------------------------------------------------------------------------------------------

ctypedef struct Item:
    const uint8_t* at
    const uint8_t* end
    size_t noted  # how many long strings stand before its end


cdef class Split:
    """A body, and where its items and its long strings are."""

    cdef bytes body
    cdef json_notes notes
    cdef Item* spans
    cdef size_t count, room
    cdef dict begins  # by the name of a list: which of the spans is its first
    cdef readonly bytes rest
    cdef readonly dict lists

    def __dealloc__(self):
        free(self.notes.notes)
        free(self.spans)

    cdef int add(self, const uint8_t* at, const uint8_t* end) except -1:
        cdef Item* grown
        if self.count == self.room:
            self.room = 2 * self.room or 64
            grown = <Item*>realloc(self.spans, self.room * sizeof(Item))
            if grown == NULL:
                raise MemoryError
            self.spans = grown
        self.spans[self.count] = Item(at, end, self.notes.count)
        self.count += 1
        return 0

    cdef const Item* item(self, bytes name, Py_ssize_t index, json_text* text) except NULL:
        """An item of a list, and the text prepared for reading it."""
        cdef Py_ssize_t at
        if not 0 <= index < len(self.lists[name]):
            raise IndexError(index)
        at = self.begins[name] + index
        text.end = <const uint8_t*>PyBytes_AS_STRING(self.body) + PyBytes_GET_SIZE(self.body)
        text.taken = NULL
        text.last = self.notes.notes + self.spans[at].noted
        text.next = self.notes.notes + (self.spans[at - 1].noted if at > 0 else 0)
        return &self.spans[at]

    def message(self, Py_ssize_t index):
        cdef json_text text
        cdef const Item* item = self.item(MESSAGES, index, &text)
        return message(&text, item.at, item.end)

    def tool(self, Py_ssize_t index):
        cdef json_text text
        cdef const Item* item = self.item(TOOLS, index, &text)
        return tool(&text, item.at, item.end)


cdef bytes MESSAGES = b"messages", TOOLS = b"tools"


def split(bytes body not None):
    cdef Split parts = Split.__new__(Split)
    cdef json_text text
    cdef const uint8_t* begin = open_text(&text, body)
    cdef const uint8_t* at = begin
    cdef const uint8_t* copied = begin
    cdef const uint8_t* item
    cdef Span name
    cdef bint ends = False, last
    cdef list rest = [], items
    cdef set seen = set()
    parts.body = body
    parts.lists = {}
    parts.begins = {}
    text.taken = &parts.notes
    text.shallow = DEPTH - NEAR
    if at[0] != c"{":
        return None
    at = json_space(at + 1)
    while not ends:
        at = key(&text, at, &name)
        if at == NULL:
            return None
        said = MESSAGES if says(&name, b"messages", 8) else TOOLS if says(&name, b"tools", 5) else None
        if said is not None:
            if said in seen:
                return None
            seen.add(said)
        if said is None or at[0] != c"[":
            at = json_value(&text, at, DEPTH, False)
            if at == NULL:
                return None
        else:
            parts.lists[said] = items = []
            parts.begins[said] = parts.count
            at = json_space(at + 1)
            rest.append(cut(copied, at))
            copied = at
            last = at[0] == c"]"
            while not last:
                item = at
                at = json_value(&text, at, DEPTH, False)
                if at == NULL:
                    return None
                items.append(cut(item, at))
                parts.add(item, at)
                copied = json_space(at)
                at = onward(at, c"]", &last)
                if at == NULL:
                    return None
            at = copied + 1
        at = onward(at, c"}", &ends)
        if at == NULL:
            return None
    if json_space(at) != text.end:
        return None
    rest.append(cut(copied, text.end))
    parts.rest = b"".join(rest)
    return parts


cdef uint64_t SECRET[DIGEST_KEYS]
memcpy(SECRET, PyBytes_AS_STRING(os.urandom(sizeof(SECRET))), sizeof(SECRET))


cdef class Key:
    cdef readonly str kind
    cdef readonly bytes raw
    cdef Py_hash_t hash

    def __init__(self, str kind not None, bytes raw not None):
        self.kind = kind
        self.raw = raw
        if DIGEST_FOLDS:
            self.hash = digest(<const uint8_t*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), SECRET) >> 1
        else:
            self.hash = hash(raw)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        if type(other) is not Key:
            return NotImplemented
        return self.hash == (<Key>other).hash and self.kind == (<Key>other).kind and self.raw == (<Key>other).raw


# --- What stands in a message -----------------------------------------------------------------------------------------

cdef bint is_empty(object text) except -1:
    """`Text.empty`."""
    return held(text, TEXT_LITERAL) is None and not text.text


cdef bint is_wire_id(str said) except -1:
    """`WIRE_ID` of the twin."""
    cdef Py_ssize_t size = 0, i
    cdef const uint8_t* at
    if said is None or not PyUnicode_IS_ASCII(said):
        return False
    at = <const uint8_t*>PyUnicode_AsUTF8AndSize(said, &size)
    if not 1 <= size <= 64:
        return False
    for i in range(size):
        if not (c"a" <= at[i] | 0x20 <= c"z" or c"0" <= at[i] <= c"9" or at[i] == c"_" or at[i] == c"-"):
            return False
    return True


def outline(tuple content not None, bint users):
    cdef list given = [], called = [], names = [], images = []
    cdef bint leads = True, says_something = False, full
    cdef bytes arguments
    for block in content:
        if type(block) is RESULT:
            if not users or not leads:
                return None
            full = False
            for part in <tuple?>held(block, RESULT_CONTENT):
                if type(part) is TEXT_BLOCK:
                    if is_empty(part):
                        return None
                    full = True
                elif type(part) is IMAGE:
                    images.append(part)
            if not full:
                return None
            given.append(held(block, RESULT_ID))
            says_something = True
            continue
        leads = False
        if type(block) is TEXT_BLOCK:
            if is_empty(block):
                return None
            says_something = True
        elif type(block) is CALL:
            call_id = held(block, CALL_ID)
            arguments = held(block, CALL_ARGUMENTS)
            if users or arguments is None or not is_wire_id(<str?>call_id) or PyBytes_AS_STRING(arguments)[0] != c"{":
                return None
            called.append(call_id)
            names.append((<str?>held(block, CALL_NAME)).lower())
        elif type(block) is IMAGE and users:
            images.append(block)
        else:
            return None
    return (tuple(given), tuple(called), tuple(names), tuple(images)) if says_something else None


# --- A message for Kiro -----------------------------------------------------------------------------------------------

cdef class Buffer:
    """Bytes in the making."""

    cdef object made  # bytes that nobody else has yet; `expect` makes them
    cdef Py_ssize_t size

    cdef int expect(self, Py_ssize_t size) except -1:
        """Make room for so many bytes, before any is written."""
        self.made = PyBytes_FromStringAndSize(NULL, size)
        return 0

    cdef char* room(self, Py_ssize_t size) except NULL:
        """Where the next so many bytes go."""
        cdef Py_ssize_t begin = self.size
        self.size += size
        if self.size > PyBytes_GET_SIZE(self.made):
            self.resize(2 * self.size)
        return PyBytes_AS_STRING(self.made) + begin

    cdef int resize(self, Py_ssize_t size) except -1:
        cdef PyObject* made = <PyObject*>self.made
        Py_INCREF(self.made)
        self.made = None
        if _PyBytes_Resize(&made, size) < 0:
            return -1
        self.made = <object>made
        Py_DECREF(self.made)
        return 0

    cdef bytes whole(self):
        """What was written. Nothing can be added to it."""
        self.resize(self.size)
        made, self.made = self.made, None
        return made

    cdef int add(self, const char* more, Py_ssize_t size) except -1:
        memcpy(self.room(size), more, size)
        return 0

    cdef int put(self, bytes more) except -1:
        return self.add(PyBytes_AS_STRING(more), PyBytes_GET_SIZE(more))

    cdef int string(self, str text) except -1:
        """A string, as JSON."""
        if text is None:
            raise TypeError("not a string")
        cdef Py_ssize_t size = 0
        cdef const uint8_t* begin
        cdef const uint8_t* at
        cdef const uint8_t* end
        if not PyUnicode_IS_ASCII(text):
            return self.put(encode_text(text))
        begin = at = <const uint8_t*>PyUnicode_AsUTF8AndSize(text, &size)
        end = at + size
        while at < end:
            at = json_plain(at, end)
            if at < end and (at[0] < 0x20 or at[0] == c'"' or at[0] == c"\\"):
                return self.put(encode_text(text))
            at += 1
        self.add(b'"', 1)
        self.add(<const char*>begin, size)
        return self.add(b'"', 1)

    cdef int paragraphs(self, list texts) except -1:
        """Texts that are all JSON, with an empty line between them."""
        cdef bint first = True
        cdef bytes literal
        self.add(b'"', 1)
        for literal in texts:
            if not first:
                self.add(b"\\n\\n", 4)
            first = False
            self.add(PyBytes_AS_STRING(literal) + 1, PyBytes_GET_SIZE(literal) - 2)
        return self.add(b'"', 1)


cdef Py_ssize_t literal_size(object text) noexcept:
    literal = held(text, TEXT_LITERAL)
    return 0 if literal is None else PyBytes_GET_SIZE(literal)


cdef Py_ssize_t expected(tuple content) except -1:
    """About the size of what is written of a message: mostly a little more."""
    cdef Py_ssize_t size = 512
    for block in content:
        size += 128
        if type(block) is TEXT_BLOCK:
            size += literal_size(block)
        elif type(block) is RESULT:
            for part in <tuple?>held(block, RESULT_CONTENT):
                size += 32
                if type(part) is TEXT_BLOCK:
                    size += literal_size(part)
                elif type(part) is IMAGE:
                    size += len(<str?>held(part, IMAGE_DATA)) + 96
        elif type(block) is CALL:
            size += len(<bytes?>held(block, CALL_ARGUMENTS)) + 64
        elif type(block) is IMAGE:
            size += len(<str?>held(block, IMAGE_DATA))
    return size


def write_user(tuple content not None, str origin not None):
    cdef Buffer out = Buffer.__new__(Buffer)
    cdef list texts = [], images = [], lifted = [], results = []
    cdef bint first
    out.expect(expected(content))
    for block in content:
        if type(block) is RESULT:
            results.append(block)
            for part in <tuple?>held(block, RESULT_CONTENT):
                if type(part) is IMAGE:
                    lifted.append(part)
        elif type(block) is TEXT_BLOCK:
            literal = held(block, TEXT_LITERAL)
            if literal is None:
                return None
            texts.append(literal)
        elif type(block) is IMAGE:
            images.append(block)
    out.put(b'{"userInputMessage":{"content":')
    out.paragraphs(texts)
    out.put(b',"origin":')
    out.string(origin)
    images += lifted
    first = True
    for image in images:
        out.put(b',"images":[{"format":' if first else b',{"format":')
        first = False
        out.string((<str?>held(image, IMAGE_TYPE)).removeprefix("image/"))
        out.put(b',"source":{"bytes":')
        out.string(<str?>held(image, IMAGE_DATA))
        out.put(b"}}")
    if images:
        out.put(b"]")
    first = True
    for result in results:
        out.put(b',"userInputMessageContext":{"toolResults":[{"toolUseId":' if first else b',{"toolUseId":')
        out.string(<str?>held(result, RESULT_ID))
        out.put(b',"content":[')
        first = True
        for part in <tuple>held(result, RESULT_CONTENT):
            if type(part) is TEXT_BLOCK:
                literal = held(part, TEXT_LITERAL)
                if literal is None:
                    return None
                out.put(b'{"text":' if first else b',{"text":')
                out.put(literal)
                out.put(b"}")
                first = False
        out.put(b'],"status":"error"}' if held(result, RESULT_IS_ERROR) else b'],"status":"success"}')
        first = False
    out.put(b"]}}}" if results else b"}}")
    return out.whole()


def write_assistant(tuple content not None, dict names not None, list used not None):
    cdef Buffer out = Buffer.__new__(Buffer)
    cdef list texts = [], calls = []
    cdef bint first = True
    out.expect(expected(content))
    for block in content:
        if type(block) is TEXT_BLOCK:
            literal = held(block, TEXT_LITERAL)
            if literal is None:
                return None
            texts.append(literal)
        elif type(block) is CALL:
            calls.append(block)
    out.put(b'{"assistantResponseMessage":{"content":')
    out.paragraphs(texts)
    for call in calls:
        name = held(call, CALL_NAME)
        arguments = held(call, CALL_ARGUMENTS)
        wire = names.get(name)
        if wire is None or not arguments:
            return None
        used.append((name, wire))
        out.put(b',"toolUses":[{"toolUseId":' if first else b',{"toolUseId":')
        first = False
        out.string(<str?>held(call, CALL_ID))
        out.put(b',"name":')
        out.string(<str?>wire)
        out.put(b',"input":')
        out.put(<bytes?>arguments)
        out.put(b"}")
    out.put(b"]}}" if calls else b"}}")
    return out.whole()


def write_tool(tool not None, str name not None):
    cdef Buffer out = Buffer.__new__(Buffer)
    cdef bytes literal, schema
    if type(tool) is not TOOL:
        return None
    literal, schema = held(tool, TOOL_LITERAL), held(tool, TOOL_SCHEMA)
    description = tool.description if literal is None else ""
    out.expect(256 + len(name) + len(schema) + (2 * len(description) if literal is None else len(literal)))
    out.put(b'{"toolSpecification":{"name":')
    out.string(name)
    out.put(b',"inputSchema":{"json":')
    out.put(schema)
    out.put(b'},"description":')
    if literal is None:
        out.string(description)
    else:
        out.put(literal)
    out.put(b"}}")
    return out.whole()


# --- A tool's schema --------------------------------------------------------------------------------------------------

cdef enum Kind:
    ANY
    STRING
    STRINGS
    WORDS  # a string, or strings
    NUMBER
    FLAG
    SCHEMA  # or a boolean
    SCHEMAS
    SCHEMA_MAP

KINDS = {
    "Any": ANY,
    "str": STRING,
    "list[str]": STRINGS,
    "str | list[str]": WORDS,
    "float": NUMBER,
    "bool": FLAG,
    "Fit | bool": SCHEMA,
    "list[Fit | bool]": SCHEMAS,
    "dict[str, Fit | bool]": SCHEMA_MAP,
}

cdef enum:
    MOST_KEYWORDS = 64
    LONGEST_KEYWORD = 32
    SLOTS = 256  # of a hash table that is never full


cdef struct Keyword:
    Py_ssize_t size
    char name[LONGEST_KEYWORD]
    int kind


cdef class Fitter:
    cdef Keyword keywords[MOST_KEYWORDS]
    cdef uint8_t slots[SLOTS]  # where a keyword is, counted from one; 0: there is none
    cdef int count
    cdef bint sure  # that a schema does not fit

    def __init__(self, table):
        cdef bytes name
        cdef Keyword* keyword
        cdef int slot
        if len(table) > MOST_KEYWORDS:
            raise ValueError("too many keywords")
        for said, kind in table.items():
            name = said.encode()
            if len(name) > LONGEST_KEYWORD:
                raise ValueError("the keyword is too long")
            keyword = &self.keywords[self.count]
            keyword.size = len(name)
            keyword.kind = KINDS[kind]
            memcpy(keyword.name, PyBytes_AS_STRING(name), keyword.size)
            self.count += 1
            slot = self.slot(<const uint8_t*>keyword.name, keyword.size)
            while self.slots[slot]:
                slot = (slot + 1) % SLOTS
            self.slots[slot] = self.count

    cdef inline int slot(self, const uint8_t* name, Py_ssize_t size) noexcept nogil:
        """Where to look for a keyword first: most differ in their length, or how they begin."""
        return (13 * size + name[0] + (name[size - 1] << 3 if size > 0 else 0)) % SLOTS

    cdef const Keyword* find(self, const Span* key) noexcept nogil:
        cdef Py_ssize_t size = key.end - key.at - 2
        cdef int slot = self.slot(key.at + 1, size)
        cdef const Keyword* keyword
        while self.slots[slot]:
            keyword = &self.keywords[self.slots[slot] - 1]
            if keyword.size == size and memcmp(keyword.name, key.at + 1, size) == 0:
                return keyword
            slot = (slot + 1) % SLOTS
        return NULL

    cdef const uint8_t* fit(self, json_text* text, const uint8_t* at, int kind, int depth) noexcept nogil:
        """Past a value of this kind, NULL if it is none."""
        cdef unsigned holds = 0
        if kind == ANY:
            return json_value(text, at, depth, True)
        if at[0] == c"n":
            self.sure = True
            return NULL
        if at[0] == c'"':
            return json_string(at + 1, text.end, &holds) if kind == STRING or kind == WORDS else NULL
        if at[0] == c"t" or at[0] == c"f":
            return json_value(text, at, depth, True) if kind == FLAG or kind == SCHEMA else NULL
        if kind == NUMBER:
            return json_modest_number(at)
        if depth <= 0:
            return NULL
        if at[0] == c"{":
            if kind == SCHEMA:
                return self.schema(text, at, depth - 1)
            return self.map(text, at, depth - 1) if kind == SCHEMA_MAP else NULL
        if at[0] != c"[":
            return NULL
        if kind == STRINGS or kind == WORDS:
            return self.array(text, at, STRING, depth - 1)
        return self.array(text, at, SCHEMA, depth - 1) if kind == SCHEMAS else NULL

    cdef const uint8_t* array(self, json_text* text, const uint8_t* at, int kind, int depth) noexcept nogil:
        cdef bint ends
        at = json_space(at + 1)
        ends = at[0] == c"]"
        if ends:
            return at + 1
        while not ends:
            at = self.fit(text, at, kind, depth)
            if at == NULL:
                return NULL
            at = onward(at, c"]", &ends)
            if at == NULL:
                return NULL
        return at

    cdef const uint8_t* map(self, json_text* text, const uint8_t* at, int depth) noexcept nogil:
        """Past an object whose members are all schemas, under names of any kind."""
        cdef unsigned holds = 0
        cdef bint ends
        at = json_space(at + 1)
        ends = at[0] == c"}"
        if ends:
            return at + 1
        while not ends:
            if at[0] != c'"':
                return NULL
            at = json_string(at + 1, text.end, &holds)
            if at == NULL:
                return NULL
            at = json_space(at)
            if at[0] != c":":
                return NULL
            at = self.fit(text, json_space(at + 1), SCHEMA, depth)
            if at == NULL:
                return NULL
            at = onward(at, c"}", &ends)
            if at == NULL:
                return NULL
        return at

    cdef const uint8_t* schema(self, json_text* text, const uint8_t* at, int depth) noexcept nogil:
        """Past a subschema that fits."""
        cdef Span name
        cdef const Keyword* keyword
        cdef bint ends
        at = json_space(at + 1)
        ends = at[0] == c"}"
        if ends:
            return at + 1
        while not ends:
            at = key(text, at, &name)
            if at == NULL:
                return NULL
            keyword = self.find(&name)
            if keyword == NULL:
                self.sure = True
                return NULL
            at = self.fit(text, at, keyword.kind, depth)
            if at == NULL:
                return NULL
            at = onward(at, c"}", &ends)
            if at == NULL:
                return NULL
        return at

    def properties(self, bytes raw not None):
        cdef json_text given
        cdef json_text* text = &given
        cdef const uint8_t* at = open_text(text, raw)
        cdef const uint8_t* begin
        cdef Span name
        cdef bint ends = False, last
        cdef dict found = None
        if at[0] != c"{":
            return {}
        at = json_space(at + 1)
        while not ends:
            at = key(text, at, &name)
            if at == NULL:
                return {}
            if not says(&name, b"properties", 10):
                at = json_value(text, at, DEPTH, False)
            elif found is not None or at[0] != c"{":
                return {}
            else:
                found = {}
                at = json_space(at + 1)
                last = at[0] == c"}"
                if last:
                    at += 1
                while not last:
                    at = key(text, at, &name)
                    if at == NULL:
                        return {}
                    begin = at
                    said = PyUnicode_DecodeUTF8(<const char*>name.at + 1, name.end - name.at - 2, NULL)
                    at = self.fit(text, begin, SCHEMA, DEPTH)
                    if at != NULL:
                        found[said] = 1 + (at - begin) // 3
                    else:
                        found.pop(said, None)
                        at = json_value(text, begin, DEPTH, False)
                    if at == NULL:
                        return {}
                    at = onward(at, c"}", &last)
                    if at == NULL:
                        return {}
            if at == NULL:
                return {}
            at = onward(at, c"}", &ends)
            if at == NULL:
                return {}
        return found or {}

    def __call__(self, bytes raw not None):
        self.sure = False
        fitting = self.fitting(raw)
        return False if fitting is None and self.sure else fitting

    cdef object fitting(self, bytes raw):
        cdef json_text given
        cdef json_text* text = &given
        cdef const uint8_t* at = open_text(text, raw)
        cdef const uint8_t* begin
        cdef Span name
        cdef const Keyword* keyword
        cdef bint seen[MOST_KEYWORDS]
        cdef bint ends = False, dialect = False, typed = False, mapped = False
        cdef list parts = []
        memset(seen, 0, sizeof(seen))
        if at[0] != c"{":
            return None
        at = json_space(at + 1)
        while not ends:
            at = key(text, at, &name)
            if at == NULL:
                return None
            begin = at
            if says(&name, b"$schema", 7):
                if dialect:
                    return None
                dialect = True
                at = json_value(text, at, DEPTH, True)
            else:
                keyword = self.find(&name)
                if keyword == NULL:
                    self.sure = True
                    return None
                if seen[keyword - self.keywords]:
                    return None
                seen[keyword - self.keywords] = True
                if says(&name, b"type", 4):
                    typed = True
                    at = json_value(text, at, 0, True)
                    if at == NULL or at - begin != 8 or memcmp(begin, b'"object"', 8) != 0:
                        return None
                elif says(&name, b"properties", 10):
                    mapped = begin[0] == c"{"
                    at = self.fit(text, at, keyword.kind, DEPTH)
                else:
                    at = self.fit(text, at, keyword.kind, DEPTH)
            if at == NULL:
                return None
            if begin - name.end == 1:
                part = cut(name.at, at)
            else:
                part = cut(name.at, name.end) + b":" + cut(begin, at)
            if not says(&name, b"$schema", 7):
                parts.append(part)
            at = onward(at, c"}", &ends)
            if at == NULL:
                return None
        if at != text.end or not typed or not mapped:
            return None
        return b"{%b}" % b",".join(parts) if dialect else raw
