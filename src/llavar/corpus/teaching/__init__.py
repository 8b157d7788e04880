"""The stage ``teach``: a language model behind an OpenAI-compatible endpoint (section 3.2 of the paper).

The model never sees the picture. It is given what OCR engines read in it, and a caption of the rest, and
makes up questions and answers about it, each answer with the lines that support it. What comes back is
checked (:mod:`llavar.corpus.teaching.faults`), asked for again a few times where it cannot be used, and
rejected with a reason after that.

All that was ever answered, and paid for, is kept under the hash of what was asked
(:mod:`llavar.corpus.teaching.replies`). So a run that was killed pays for nothing twice, and answers may as
well come out of a batch file (:mod:`llavar.corpus.teaching.batch`): the same steps
(:mod:`llavar.corpus.teaching.lesson`) are gone through, whoever answers.
"""
