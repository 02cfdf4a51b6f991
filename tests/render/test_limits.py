from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
import tracemalloc
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.support import ROOT
from tutelage.errors import TemplateError
from tutelage.render import ChatTemplate
from tutelage.render.chat_template.limits import NODE_CHARACTERS, Limits, Meter
from tutelage.render.chat_template.sandbox import MeteredEnvironment
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.render.chat_template.tracing import TracedText

SAID = [{"role": "user", "content": "hello"}]
BIG = "{% set big = 'x' * 9000000 %}"
ALIKE = BIG + "{% set one = big ~ 'y' %}{% set two = big ~ 'y' %}"
NESTED = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"

START = "{% set ns = namespace(x='a') %}{% for i in range(99) %}"

HOSTILE = {
    "nested_loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops_that_write": "{% for a in range(9999) %}{% for b in range(9999) %}0123456789abcdef{% endfor %}{% endfor %}",
    "doubling_by_tilde": START + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling_by_plus": START + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling_a_list": START.replace("'a'", "[1]") + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "growing_by_content": "{% set ns = namespace(x='') %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x ~ messages[0].content %}{% endfor %}",
    "times": "{{ 'a' * 10**10 }}",
    "times_a_list": "{{ ([1] * 10**10) | length }}",
    "times_bytes": "{{ 'a'.encode() * 10**10 }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "center_filter": "{{ 'a' | center(10**9) }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "center_of_content": "{{ messages[0].content.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "rjust_of_bytes": "{{ 'a'.encode().rjust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\\t'.expandtabs(1000000000) }}",
    "percent_width": "{{ '%1000000000d' % 1 }}",
    "percent_star": "{{ '%*d' % (1000000000, 1) }}",
    "percent_precision": "{{ '%.1000000000f' % 1 }}",
    "percent_key": "{{ '%(a)01000000000d' % {'a': 1} }}",
    "format_filter": "{{ '%1000000000d' | format(1) }}",
    "braces": "{{ '{:1000000000}'.format(1) }}",
    "braces_in_braces": "{{ '{:{}}'.format(1, 1000000000) }}",
    "braces_of_mapping": "{{ '{a:1000000000}'.format_map({'a': 'x'}) }}",
    "braces_of_safe_text": "{{ ('{:1000000000}' | safe).format(1) }}",
    "braces_again_and_again": BIG + "{{ ('{0}' * 100000).format(big) }}",
    "endless_recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "recursion_like_a_tree": "{% macro tree(n) %}{% if n %}{{ tree(n - 1) }}{{ tree(n - 1) }}{% endif %}{% endmacro %}"
    "{{ tree(60) }}",
    "block_in_itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "loop_in_itself": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "join_filter": "{{ range(99999) | join('x' * 1000) }}",
    "join": "{{ ('x' * 100000).join(['a'] * 100000) }}",
    "replace_filter": "{{ ('a' * 1000000) | replace('a', 'b' * 1000) }}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000) }}",
    "replace_nothing": "{{ ('a' * 1000000).replace('', 'b' * 1000) }}",
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 100000}) }}",
    "to_bytes": "{{ (5).to_bytes(1000000000, 'big') | length }}",
    "number_from_bytes": "{{ (1).from_bytes(('f' * 9000000).encode(), 'big') }}",
    "number_from_text": "{{ ('f' * 9000000) | int(0, 16) // 3 }}",
    "rounding": "{{ 5 | round(-1000000000) }}",
    "indent": "{{ '\\n\\n' | indent(1000000000, blank=true) }}",
    "indent_of_lines": "{{ ('\\n' * 100000) | indent(100000, blank=true) }}",
    "lists_that_hold_each_other": NESTED + "{{ ns.x }}",
    "lists_that_hold_each_other_as_json": NESTED + "{{ ns.x | tojson }}",
    "lists_that_hold_each_other_as_text": NESTED + "{{ (ns.x | string) | length }}",
    "json_of_json": "{{ '\"'" + " | tojson" * 60 + " }}",
    "json_indent": "{{ [1, 2] | tojson(indent=1000000000) }}",
    "json_separators": "{{ ([1] * 100000) | tojson(separators=('x' * 1000, ':')) }}",
    "escape_of_escape": "{{ ('<' * 1000000)" + " | forceescape" * 30 + " }}",
    "many_values": "".join(f"{{% set a{n} = 'x' * 9000000 %}}" for n in range(500)),
    "many_slices": BIG + "".join(f"{{% set a{n} = big[1:] %}}" for n in range(500)),
    "many_set_blocks": BIG + "".join(f"{{% set a{n} %}}{{{{ big }}}}{{% endset %}}" for n in range(500)),
    "many_outputs": BIG + "{% for i in range(1000) %}{{ big }}{% endfor %}",
    "many_outputs_in_a_macro": BIG
    + "{% macro m() %}{% for i in range(1000) %}{{ big + 'a' }}{% endfor %}{% endmacro %}{{ m() }}",
    "doubling_where_text_is_escaped": "{% autoescape true %}{% set ns = namespace(x='<') %}"
    "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{% endautoescape %}",
    "split": "{{ ('a ' * 5000000).split() | length }}",
    "list_of_characters": "{{ ('a' * 9000000) | list | length }}",
    "lists_of_characters": "{{ (['x' * 1000000] * 100000) | map('list') | list | length }}",
    "sum_of_lists": "{{ ([[1]] * 100000) | sum(start=[]) | length }}",
    "batch": "{{ [1] | batch(1000000000, 0) | list | length }}",
    "slice": "{{ [1] | slice(1000000000) | list | length }}",
    "wordwrap": "{{ ('a ' * 1000000) | wordwrap(1) }}",
    "urlize": "{{ ('(' * 5000000) | urlize }}",
    "striptags": "{{ ('<!---->' * 1000000) | striptags }}",
    "pprint": "{{ ([1] * 100000) | pprint }}",
    "sort": ALIKE + "{{ ([one, two] * 50000) | sort | length }}",
    "search_in_a_list": ALIKE + "{{ one in ([two] * 100000) }}",
    "count_in_a_list": ALIKE + "{{ ([one] * 100000).count(two) }}",
    "compare_lists": ALIKE + "{{ ([one] * 100000) == ([two] * 100000) }}",
    "select": ALIKE + "{{ ([one] * 100000) | select('equalto', two) | list | length }}",
    "search_in_text": BIG + "{% for i in range(99999) %}{% if 'b' in big %}{% endif %}{% endfor %}",
    "find_in_text": BIG + "{% for i in range(99999) %}{% if big.find('b') > 0 %}{% endif %}{% endfor %}",
    "much_work_a_round": "{% for i in range(99999) %}" + "{% if i in [1, 2] %}{% endif %}" * 1000 + "{% endfor %}",
    "deep_expression": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep_loops": "{% for a in [1] %}" * 40 + "{% endfor %}" * 40,
    "long_source": "{% if true %}{% endif %}" * 100_000,
}

RUN_ALL = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from tests.render.test_limits import HOSTILE, SAID
from tutelage.errors import TemplateError
from tutelage.render.chat_template.template import ChatTemplate
ended = {}
for name, source in HOSTILE.items():
    start = time.monotonic()
    try:
        ChatTemplate(source, named_tokens={}, name=name, max_seconds=1.0).render(SAID, generation_prompt=False)
        said = "rendered"
    except TemplateError as error:
        said = "" if error.fix and error.found and error.where.startswith(name) else repr(error)
    except Exception as error:
        said = repr(error)
    ended[name] = (said, time.monotonic() - start)
# getrusage counts the parent's memory at the start of this process as well; the kernel's own mark begins anew.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([ended, int(status["VmHWM"].split()[0])]))
"""


@cache
def all_hostile() -> tuple[dict[str, tuple[str, float]], int]:
    """(what ended each and after how many seconds, peak memory in KiB), in a process of their own."""
    command = [sys.executable, "-c", RUN_ALL, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    ended, peak_kib = json.loads(done.stdout)
    return ended, peak_kib


def rendered(source: str, messages: list[dict[str, Any]] | None = None, **limits: Any) -> str:
    return ChatTemplate(source, named_tokens={}, **limits).render(messages or SAID, generation_prompt=False)


class TestHostileTemplates:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_hostile_template_ends_in_an_error(self, name: str) -> None:
        said, elapsed_seconds = all_hostile()[0][name]
        assert said == ""
        assert elapsed_seconds < 10, "a second of rendering, and what compiling takes"

    def test_memory_stays_small(self) -> None:
        assert all_hostile()[1] < 400 * 1024

    def test_the_error_says_what_to_do(self) -> None:
        with pytest.raises(TemplateError) as caught:
            rendered(HOSTILE["doubling_by_tilde"], name="mine.jinja", max_characters=1_000)
        assert caught.value.where == "mine.jinja"
        assert caught.value.found == "a value of 1,024 characters" or "too much" in str(caught.value.found)
        assert "1,000 characters" in str(caught.value.expected)
        assert caught.value.fix is not None

    def test_tracing_ends_as_rendering_does(self) -> None:
        template = ChatTemplate(HOSTILE["growing_by_content"], named_tokens={})
        with pytest.raises(TemplateError):
            template.trace(SAID, generation_prompt=False)

    @pytest.mark.parametrize("source", ["{{ lipsum() }}", "{{ [1, 2] | random }}"])
    def test_random_text_is_refused(self, source: str) -> None:
        with pytest.raises(TemplateRefusal, match="random"):
            rendered(source)

    def test_a_key_with_parentheses_hides_no_width(self) -> None:
        with pytest.raises(TemplateRefusal):
            rendered("{{ '%((a))01000000000d' % {'(a)': 1} }}")


class TestLimits:
    def test_the_output_may_be_as_long_as_the_limit_and_no_longer(self) -> None:
        source = "{% for m in messages %}{{ m.content }}{% endfor %}"
        messages = [{"role": "user", "content": "x" * 10}] * 10
        assert len(rendered(source, messages, max_characters=100)) == 100
        with pytest.raises(TemplateError):
            rendered(source, messages, max_characters=99)

    def test_the_time_is_limited(self) -> None:
        start = time.monotonic()
        with pytest.raises(TemplateError, match=r"0\.2 s"):
            rendered(HOSTILE["much_work_a_round"], max_seconds=0.2)
        assert time.monotonic() - start < 10

    def test_an_ordinary_row_of_great_length_is_rendered(self) -> None:
        said = [{"role": "user", "content": "word " * 200_000}, {"role": "assistant", "content": "é\n" * 500_000}]
        source = (
            "{% for m in messages %}{% set ns = namespace(text=m.content | trim) %}"
            "{{ '<' + m['role'] + '>' ~ (ns.text.split('</think>') | last).strip('\\n') + m.content | tojson }}"
            "{% endfor %}"
        )
        traced = ChatTemplate(source, named_tokens={}).trace(said, generation_prompt=False)
        assert len(traced.text) > 4_000_000
        assert traced.followed

    def test_a_conversation_of_many_turns_is_rendered(self) -> None:
        said = [{"role": "user", "content": "x"}] * 2_000
        source = "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ ' last' if loop.last }},{% endfor %}"
        text = rendered(source, said)
        assert text.startswith("1/2000,2/2000,")
        assert text.endswith("1999/2000,2000/2000 last,")

    def test_limits_hold_for_each_rendering_anew(self) -> None:
        template = ChatTemplate("{{ messages[0].content * 90 }}", named_tokens={}, max_characters=1_000)
        for _ in range(100):
            assert len(template.render(SAID, generation_prompt=False)) == 450


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ ('' | attr('__class__')).__mro__ }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ messages | map(attribute='content.__class__') | list }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__mro__}'.format(messages[0].content) }}",
    "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "{{ ('{0.__class__}' | attr('format'))('') }}",
    "{{ ('{0.__class__}' | safe).format('') }}",
    "{{ ''.format.__globals__ }}",
    "{{ ''.format._environment }}",
    "{{ messages[0].content.strip.__globals__ }}",
    "{{ messages[0].content.strip.__func__ }}",
    "{{ messages[0].content._runs }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(a=1).__init__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns._html = 1 %}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now._midday }}",
    "{{ strftime_now.__call__.__globals__ }}",
    "{{ dict.__class__ }}",
    "{{ dict.__subclasses__() }}",
    "{{ range.__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% for m in messages %}{{ loop._iterator }}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0].setdefault('x', 1) }}",
    "{{ messages.__setitem__(0, 1) }}",
    "{{ messages | attr('clear') }}",
    "{{ (messages | attr('clear'))() }}",
]


@pytest.mark.parametrize("source", ESCAPES)
@pytest.mark.parametrize("way", ["render", "trace"])
def test_nothing_of_python_is_reached(source: str, way: str) -> None:
    template = ChatTemplate("a" + source + "b", named_tokens={})
    said = [dict(one) for one in SAID]
    try:
        shown = getattr(template, way)(said, generation_prompt=False)
        text = shown if way == "render" else shown.text
        assert text.replace("[Undefined]", "") == "ab"
    except TemplateRefusal:
        pass
    assert said == SAID


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


def counted(value: Any, depth: int = 0) -> tuple[int, int]:
    """What a value's shape is, by its definition: characters of texts and numbers, some for each part, and depth."""
    own = len(value) if isinstance(value, str) else value.bit_length() // 3 if isinstance(value, int) else 0
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    below = [counted(part, depth + 1) for part in parts]
    return own + NODE_CHARACTERS + sum(total for total, _ in below), max([depth, *(deep for _, deep in below)])


@given(PLAIN)
def test_the_shape_of_a_value_is_counted_over_all_of_its_parts(value: Any) -> None:
    assert Meter(Limits("test"), tracing=False).shape(value) == counted(value)


def test_what_holds_itself_many_times_is_not_put_aside_to_be_counted() -> None:
    most = Limits("test").characters
    row = [0] * (most // NODE_CHARACTERS - 2_000)
    tracemalloc.start()
    total, _ = Meter(Limits("test"), tracing=False).shape([row] * 1_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > most
    assert peak_bytes < 3 * sys.getsizeof(row)


@pytest.mark.parametrize("value", ["", TracedText("", ()), {}, [], (), 1, 1.5, True, None], ids=repr)
def test_what_a_template_may_reach_is_what_jinja_says_the_second_time_too(value: Any) -> None:
    environment = MeteredEnvironment(Limits("test"), datetime.date(2026, 1, 1))
    theirs = ImmutableSandboxedEnvironment()
    for name in (
        "append",
        "clear",
        "update",
        "pop",
        "keys",
        "items",
        "upper",
        "format",
        "mro",
        "__class__",
        "_x",
        "real",
    ):
        expected = theirs.is_safe_attribute(value, name, None)
        assert [environment.is_safe_attribute(value, name, None) for _ in range(2)] == [expected, expected]
