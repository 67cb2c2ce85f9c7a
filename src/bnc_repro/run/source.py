"""Source code as its meaning: the text without comments, docstrings and formatting.

Works on the tokens and their positions in the text, which are the same in every Python from 3.11 on; the nodes of the
syntax tree are not. What two texts share if they differ in formatting alone: line breaks and indentation, quotes and
parts of strings, ways to write a number, trailing commas that make no tuple, parentheses around a whole expression.
"""

import ast
import io
import json
import keyword
import re
import tokenize
from dataclasses import dataclass

PAIRS = {"(": ")", "[": "]", "{": "}"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
STRING_STARTS = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
STRING_ENDS = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
MARKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "\x01", tokenize.DEDENT: "\x02"}
# Between these a pair of parentheses around one expression says nothing.
BEFORE = {"=", "return", "yield", "(", "[", "{", ",", ":", "+=", "-=", "*=", "/=", "|=", "&="}
AFTER = {"\n", ")", "]", "}", ",", ":", "="}
# What cannot stand without its parentheses there, or is another thing with them.
INSIDE = {",", "for", "yield", ":=", "async"}


@dataclass
class _Token:
    text: str
    kind: str  # name, string, operator, number, layout


def meaning(text: str) -> str:
    """`text`, Python source, as its tokens, one a line. Raises SyntaxError where it is none."""
    tokens = _tokens(text)
    drop = _idle_commas(tokens) | _idle_parentheses(tokens)
    kept = [token for index, token in enumerate(tokens) if index not in drop]
    return "\x00".join(token.text for token in kept)


def _docstrings(text: str) -> set[tuple[int, int]]:
    """Where each docstring starts: line from 1, column in bytes from 0."""
    lines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    lines.add((first.value.lineno, first.value.col_offset))
    return lines


def _tokens(text: str) -> list[_Token]:
    docstrings, lines = _docstrings(text), text.splitlines(keepends=True)
    tokens: list[_Token] = []
    opened, start, in_docstring = 0, (0, 0), False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in STRING_STARTS:  # since 3.12 a formatted string is many tokens: take it as it stands
            start = token.start if not opened else start
            opened += 1
        elif token.type in STRING_ENDS:
            opened -= 1
            if not opened:
                _add_string(tokens, _between(lines, start, token.end))
        elif opened or token.type in LAYOUT:
            continue
        elif token.type == tokenize.STRING:
            column = len(lines[token.start[0] - 1][: token.start[1]].encode())
            # The parts of a docstring that is written in several follow each other.
            in_docstring = (token.start[0], column) in docstrings or (in_docstring and bool(docstrings))
            if not in_docstring:
                _add_string(tokens, token.string)
        else:
            ended, in_docstring = in_docstring, False
            if token.type in MARKS:
                if not (ended and token.type == tokenize.NEWLINE):
                    tokens.append(_Token(MARKS[token.type], "layout"))
            elif token.string == ";":
                if not ended:
                    tokens.append(_Token("\n", "layout"))
            elif token.type == tokenize.NUMBER:
                tokens.append(_Token(_number(token.string), "number"))
            else:
                kind = "name" if token.type == tokenize.NAME else "operator"
                tokens.append(_Token(token.string, kind))
    return tokens


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    rows = lines[start[0] - 1 : end[0]]
    rows[-1] = rows[-1][: end[1]]
    rows[0] = rows[0][start[1] :]
    return "".join(rows)


def _add_string(tokens: list[_Token], literal: str) -> None:
    """Append a literal by its value, a formatted one by its body; joined to the one before it, where that shows nothing
    else."""
    parts = re.match(r"(?s)([a-zA-Z]*)('''|\"\"\"|'|\")(.*)\2\Z", literal)
    assert parts is not None, literal
    prefix, _, body = parts.groups()
    kind = "".join(sorted(set(prefix.lower()) & set("frt"))) if set(prefix.lower()) & set("ft") else ""
    if not kind:
        value = ast.literal_eval(literal)
        kind = "b" if isinstance(value, bytes) else "s"
        body = value.decode("latin-1") if isinstance(value, bytes) else value
    elif "r" not in kind:
        body = re.sub(r"\\(.)", lambda match: match[1] if match[1] in "'\"" else match[0], body, flags=re.S)
    if tokens and tokens[-1].kind == "string":
        before, other = tokens[-1].text[0], json.loads(tokens[-1].text[tokens[-1].text.index('"') :])
        if before == kind and kind in "bsf":
            body = other + body
            tokens.pop()
        elif {before, kind} == {"s", "f"} and tokens[-1].text[1] == '"':
            plain = other if before == "s" else body
            if plain.isprintable() and "\\" not in plain:
                escaped = plain.replace("{", "{{").replace("}", "}}")
                body, kind = (escaped + body if before == "s" else other + escaped), "f"
                tokens.pop()
    tokens.append(_Token(kind + json.dumps(body), "string"))


def _number(text: str) -> str:
    """A number by its value; an imaginary one as it stands."""
    text = text.lower().replace("_", "")
    if text.endswith("j"):
        return text
    return repr(float(text)) if set(text) & set(".e") and not text.startswith("0x") else str(int(text, 0))


def _brackets(tokens: list[_Token]) -> dict[int, int]:
    """The place of each opening bracket -> that of the closing one."""
    waiting, partner = [], {}
    for index, token in enumerate(tokens):
        if token.kind == "operator" and token.text in PAIRS:
            waiting.append(index)
        elif token.kind == "operator" and token.text in PAIRS.values():
            partner[waiting.pop()] = index
    return partner


def _follows_a_value(tokens: list[_Token], index: int) -> bool:
    """Whether the bracket at `place` calls or subscripts what stands before it."""
    if not index:
        return False
    before = tokens[index - 1]
    if before.kind == "name":
        return not keyword.iskeyword(before.text)
    return before.kind == "string" or before.text in PAIRS.values()


def _top_level(tokens: list[_Token], start: int, end: int, brackets: dict[int, int]) -> list[int]:
    """Places between a bracket and its end that lie in no further bracket."""
    indices, index = [], start + 1
    while index < end:
        indices.append(index)
        index = brackets[index] if index in brackets else index + 1
        if indices[-1] in brackets:
            indices.append(index)
            index += 1
    return indices


def _idle_commas(tokens: list[_Token]) -> set[int]:
    brackets, idle = _brackets(tokens), set()
    for start, end in brackets.items():
        last = end - 1
        if tokens[last].text != "," or last == start:
            continue
        opening, calls = tokens[start].text, _follows_a_value(tokens, start)
        commas = sum(tokens[index].text == "," for index in _top_level(tokens, start, end, brackets))
        imports = start > 0 and tokens[start - 1].text in ("import", "with")
        makes_no_tuple = opening == "{" or (opening == "[" and not calls) or (opening == "(" and (calls or imports))
        if makes_no_tuple or commas > 1:
            idle.add(last)
    return idle


def _idle_parentheses(tokens: list[_Token]) -> set[int]:
    brackets, idle = _brackets(tokens), set()
    for start, end in brackets.items():
        if tokens[start].text != "(" or start == 0 or end + 1 >= len(tokens):
            continue
        if (tokens[start - 1].text, tokens[end + 1].text) in (("import", "\n"), ("with", ":")):
            idle |= {start, end}
            continue
        places = _top_level(tokens, start, end, brackets)
        inside = {tokens[index].text for index in places}
        starred = any(tokens[p].text in ("*", "**") and tokens[p - 1].text in ("(", ",") for p in places)
        before, after = tokens[start - 1].text, tokens[end + 1].text
        if before in ("=", "return") and after == "\n":
            inside -= {","}  # a tuple is one without them too
        if _follows_a_value(tokens, start) or end == start + 1 or starred or inside & INSIDE:
            continue
        begins = before in ("elif", "while") or (before == "if" and (start == 1 or tokens[start - 2].kind == "layout"))
        opens = tokens[start - 1].kind in ("operator", "name") and before in BEFORE
        loops = (before, after) == ("for", "in") or (after == ":" and _is_loop_over(tokens, start))
        if (opens and after in AFTER) or (begins and after == ":") or loops:
            idle |= {start, end}
    return idle


def _is_loop_over(tokens: list[_Token], index: int) -> bool:
    """Whether the bracket at `place` opens what a `for` statement loops over."""
    begin = next((i + 1 for i in range(index - 1, -1, -1) if tokens[i].kind == "layout"), 0)
    words = [token.text for token in tokens[begin:index]]
    return words[:1] == ["for"] and words.count("in") == 1 and words[-1] == "in"
