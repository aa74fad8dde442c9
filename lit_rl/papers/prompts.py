"""What a question generator is told about a real paper (intelli.md section 1.4; the wording is ours)."""

GENERATION_SYSTEM = (
    "You are an expert reviewer who asks questions that nobody else would think of. You are given the text of a "
    "research paper, read by OCR. Ask its authors one question of high quality, and write nothing but that question."
)


def generation_prompt(paper_text: str) -> str:
    """The user's turn: what follows is a paper, what is wanted is a question about it, then the text.

    Args:
        paper_text: Cut beforehand, where it is too long.
    """
    return f"Below is the complete text of a paper. Ask one question that is based on it.\n{paper_text}"
