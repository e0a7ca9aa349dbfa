"""Prompt text of a wanted length that no server has seen before.

Repeated "random" prompts hit a server's prefix cache and make TTFT look better by orders of magnitude, and
not evenly over a sweep. So every prompt is drawn from (salt, index): the salt is a nonce of the run, the
index that of the request, and the very first words already differ between requests. The words are short and
common: most byte-pair vocabularies hold each of them, with its leading space, as one token, and pdserve's
presets map every whitespace-separated word to exactly one.

A hash stretched to the wanted length (SHAKE) is the generator: same text on every machine and Python
version, in microseconds. Nothing heavy is imported, since the engine process makes the prompts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import msgspec

_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an
they which one you were her all she there would their we him been has when who will more no if out
so said what up its about into than them can only other new some could time these two may then do
first any my now such like our over man me even most made after also did many before must through
years where much your way well down should because each just those people how too little state good
very make world still own see men work long get here between both life being under never day same
another know while last might us great old year off come since against go came right used take three
states himself few house use during without again place around however home small found thought went
say part once general high upon school every war does number night point water head room big side
left door face eye hand body name line end group set turn read form word plan city land road car law
air game team club food book story music art test data list case fact idea type kind level rate
price cost money bank market sale firm job class study field area center north south east west river
sea lake rock tree leaf seed farm fish bird horse dog cat bear wolf wood iron gold silver metal
stone glass paper cloth rain snow wind sun moon star sky light dark heat cold fire ice warm cool dry
wet red blue green black white gray brown pink deep wide tall short thin thick flat round sharp soft
hard fast slow early late young near far open closed free full empty clean rich poor strong weak
safe sick heavy simple plain fine true false real main major local legal human social public private
common special final total single double whole half third next past future run walk move stop start
begin finish keep hold bring send give put push pull lift drop fall rise grow build break cut fix
join lead follow meet visit call ask tell speak talk write draw paint sing play dance watch look
listen hear feel touch taste smell think learn teach guess hope wish want need love hate fear trust
help save serve share spend pay buy sell trade win lose beat hit kick throw catch ride drive fly
swim sail jump climb sleep wake eat drink cook wash wear sit stand wait stay leave return enter pass
cross reach count add measure check mark note sign print copy press search mother father brother
sister son daughter child baby girl boy friend king queen lord lady doctor nurse judge guard chief
captain table chair bed floor wall roof window kitchen garden street bridge tower church court hall
hotel shop store station train plane ship boat truck bus wheel engine motor power energy force
weight speed length size shape color
"""
WORDS: tuple[str, ...] = tuple(_TEXT.split())
_MASK = len(WORDS) - 1  # 512 words: nine bits of the hash pick one, each equally likely


class PromptMaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Makes the prompts of one run.

    ``words_per_token`` and ``overhead_tokens`` (a chat template's own tokens) are calibrated against the
    ``usage`` that a foreign server reports; for pdserve they are 1 and 0.
    """

    salt: str
    words_per_token: float = 1.0
    overhead_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.words_per_token > 0:
            raise ValueError(f"words_per_token must be greater than 0, got {self.words_per_token:g}")
        if self.overhead_tokens < 0:
            raise ValueError(f"overhead_tokens must not be negative, got {self.overhead_tokens}")

    def words(self, n_tokens: int) -> int:
        """How many words make ``n_tokens`` tokens, template included; at least one."""
        return max(1, round((n_tokens - self.overhead_tokens) * self.words_per_token))

    def text(self, index: int, n_tokens: int, segments: Sequence[tuple[int, int]] = ()) -> str:
        """The prompt of request ``index``: ``words(n_tokens)`` words with single spaces between them.

        Two indexes of one run never get the same text as long as there are three words or more (two words:
        262,144 indexes; one word: 512), because the first words spell the index. ``segments``: pieces (id, tokens) at
        its start, the same words for whoever names the same id after the same pieces; what they leave is its own.
        """
        count = self.words(n_tokens)
        picks: list[int] = []
        end = 0
        for name, tokens in segments:
            end += tokens
            # Rounded from the prompt's start, so that prompts which share pieces cut them at the same words.
            wanted = min(count, round(end * self.words_per_token)) - len(picks)
            if wanted > 0:
                picks += _picks(f"{self.salt}\x1fsegment\x1f{name}", wanted)
        if len(picks) < count:
            picks += self._own(index, count - len(picks))
        return " ".join([WORDS[pick & _MASK] for pick in picks])

    def _own(self, index: int, count: int) -> list[int]:
        picks = _picks(f"{self.salt}\x1f{index}", count)
        offset = _picks(self.salt, 1)[0]
        rest = index
        for place in range(min(3, count)):
            # The salt turns the first word, so that run after run starts elsewhere; the rest is plain
            # base 512.
            picks[place] = rest + offset
            rest >>= 9
        return picks


def _picks(seed: str, count: int) -> list[int]:
    """``count`` numbers below 65,536; fewer are the beginning of more."""
    return list(struct.unpack(f"<{count}H", hashlib.shake_128(seed.encode()).digest(2 * count)))
