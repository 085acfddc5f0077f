"""
benchmarks.lib.beam_generate
############################
The same beam search as it is commonly written: ``generate`` of transformers, a prefix function over a Python trie.
"""

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

USERS_AT_ONCE = 64  # generate repeats prompts and cache for every beam: 20 of them for 512 users would take 7 GB


class GenerateScheme:
    """A GPT-2 of the same shape as a TokenRec-beam's decoder, which reads that model's prompts and writes its codes.

    The weights are fresh: only the clock looks at what it does. Codes of all levels share one vocabulary.

    Args:
        model: a TokenRec-beam whose stages are finished.
        width: beams.
    """

    def __init__(self, model, width: int):
        self.model, self.width = model, width
        own, n_codes = model.backbone.transformer.config, model.decoder.item_codes.codebook_size
        self.n_tokens, self.n_codes = len(model.decoder.heads), n_codes
        self.network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self.n_tokens * n_codes + 1,
                n_positions=own.n_positions,
                n_embd=own.n_embd,
                n_layer=own.n_layer,
                n_head=own.n_head,
                n_inner=own.n_inner,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=self.n_tokens * n_codes,
            )
        ).eval()
        self.item_of, self.next_codes = {}, {}
        items = model.decoder.trie.items
        codes = model.decoder.item_codes.codes[items] + torch.arange(self.n_tokens) * n_codes
        for item, path in zip(items.tolist(), codes.tolist()):
            self.item_of[tuple(path)] = item
            for level in range(self.n_tokens):
                self.next_codes.setdefault(tuple(path[:level]), set()).add(path[level])
        self.next_codes = {prefix: sorted(codes) for prefix, codes in self.next_codes.items()}

    @torch.no_grad()
    def items(self, interaction) -> Tensor:
        """The items of the beams [B, W] for some rows of RecBole, best first."""
        model, found = self.model, []
        for rows in torch.arange(len(interaction)).split(USERS_AT_ONCE):
            length = interaction[model.ITEM_SEQ_LEN][rows]
            prompt = model.history.layout(
                interaction[model.ITEM_SEQ][rows, : int(length.max())], interaction[model.USER_ID][rows]
            )
            written = self.network.generate(
                **self._left_padded(prompt.vectors, prompt.last(length) + 1),
                max_new_tokens=self.n_tokens,
                num_beams=self.width,
                num_return_sequences=self.width,
                do_sample=False,
                prefix_allowed_tokens_fn=lambda _, prefix: self.next_codes[tuple(prefix.tolist())],
            )
            items = [self.item_of[tuple(path)] for path in written[:, -self.n_tokens :].tolist()]
            found.append(torch.tensor(items).view(len(rows), self.width))
        return torch.cat(found)

    @staticmethod
    def _left_padded(prompt: Tensor, length: Tensor) -> dict[str, Tensor]:
        """Prompts [b, S, D] of some length [b] as ``generate`` reads them: padded at the start."""
        place = torch.arange(int(length.max()))
        source = place - (length.max() - length)[:, None]  # [b, S]
        rows = torch.arange(len(prompt))[:, None]
        return {"inputs_embeds": prompt[rows, source.clamp(min=0)], "attention_mask": (source >= 0).long()}
