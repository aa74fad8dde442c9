"""Which tasks of reasoning-gym 0.1.25 may be used, and why some may not.

Allowed are tasks with one short right answer, so that it can be compared without the task's own verifier.
"""

ALLOWED = (
    "aiw",
    "base_conversion",
    "basic_arithmetic",
    "binary_alternation",
    "calendar_arithmetic",
    "chain_sum",
    "circuit_logic",
    "color_cube_rotation",
    "count_bits",
    "count_primes",
    "course_schedule",
    "decimal_chain_sum",
    "dice",
    "family_relationships",
    "fraction_simplification",
    "gcd",
    "gsm_symbolic",
    "isomorphic_strings",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "mahjong_puzzle",
    "maze",
    "needle_haystack",
    "number_sequence",
    "products",
    "ransom_note",
    "rectangle_count",
    "rotten_oranges",
    "self_reference",
    "simple_equations",
    "simple_geometry",
    "spell_backward",
    "syllogism",
    "zebra_puzzles",
)

_EVALUATES = "its verifier evaluates the model's answer as code in this process"
_RAISES = "its verifier raises on some answers"
_ACCEPTS = "its verifier accepts wrong answers"

REFUSED = {
    "bf": "it prints while it makes problems",
    "binary_matrix": _EVALUATES,
    "boxnet": _RAISES,
    "coin_flip": _ACCEPTS,
    "countdown": f"{_EVALUATES}; use CountdownTasks",
    "decimal_arithmetic": "its right answers depend on how intermediate steps are rounded",
    "game_of_life": _RAISES,
    "game_of_life_halting": _ACCEPTS,
    "intermediate_integration": _EVALUATES,
    "n_queens": _EVALUATES,
    "polynomial_equations": _ACCEPTS,
    "polynomial_multiplication": _EVALUATES,
    "power_function": "its verifier writes out numbers of any length, such as 1e999999999",
    "prime_factorization": _RAISES,
    "puzzle24": _EVALUATES,
    "simple_integration": _EVALUATES,
    "spiral_matrix": _EVALUATES,
    "string_insertion": _EVALUATES,
    "time_intervals": "its problems depend on today's date",
}
