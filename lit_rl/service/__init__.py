"""Service dialogues: customers, procedures, a planner who chooses skills and a responder who words them."""

from lit_rl.service.annotated import AnnotatedDialogue, AnnotatedTurn, played_dialogue, scenario_ids
from lit_rl.service.annotated_files import read_annotated, write_annotated
from lit_rl.service.constraints import service_constraints
from lit_rl.service.customers import CUSTOMER_INSTRUCTION, scripted_customer
from lit_rl.service.dialogue import CUSTOMER, PLANNER, RESPONDER, Masks, Mode, ServiceDialogue
from lit_rl.service.facts import ScenarioFacts, ServiceFacts, scenario_facts, served, service_facts
from lit_rl.service.labels import SkillLabels
from lit_rl.service.memory import SkillMemory
from lit_rl.service.multiwoz import MultiWOZ
from lit_rl.service.prompts import ServicePrompts
from lit_rl.service.rated import rated
from lit_rl.service.raters import JudgeRater, PartyRater
from lit_rl.service.reply_rules import ReplyRule
from lit_rl.service.retold import Retelling, RetoldWorld
from lit_rl.service.scripts import ScriptedFlat, ScriptedPlanner, ServiceContext, scripted_responder
from lit_rl.service.sop import Procedure
from lit_rl.service.spoken import spoken_episodes
from lit_rl.service.toy_shop import OBJECTIONS, ShopGoal, ShopState, toy_shop_procedure
from lit_rl.service.toy_shop_plans import PlanRun, best_plan, expert_plan, run_plan
from lit_rl.service.toy_shop_words import LABELS, toy_shop_words
from lit_rl.service.toy_shop_world import ServiceScenarios, ToyShop
from lit_rl.service.world import CustomerCue, ServiceSource, ServiceStep, ServiceWorld

__all__ = [
    "CUSTOMER",
    "CUSTOMER_INSTRUCTION",
    "LABELS",
    "OBJECTIONS",
    "PLANNER",
    "RESPONDER",
    "AnnotatedDialogue",
    "AnnotatedTurn",
    "CustomerCue",
    "JudgeRater",
    "Masks",
    "Mode",
    "MultiWOZ",
    "PartyRater",
    "PlanRun",
    "Procedure",
    "ReplyRule",
    "Retelling",
    "RetoldWorld",
    "ScenarioFacts",
    "ScriptedFlat",
    "ScriptedPlanner",
    "ServiceContext",
    "ServiceDialogue",
    "ServiceFacts",
    "ServicePrompts",
    "ServiceScenarios",
    "ServiceSource",
    "ServiceStep",
    "ServiceWorld",
    "ShopGoal",
    "ShopState",
    "SkillLabels",
    "SkillMemory",
    "ToyShop",
    "best_plan",
    "expert_plan",
    "played_dialogue",
    "rated",
    "read_annotated",
    "run_plan",
    "scenario_facts",
    "scenario_ids",
    "scripted_customer",
    "scripted_responder",
    "served",
    "service_constraints",
    "service_facts",
    "spoken_episodes",
    "toy_shop_procedure",
    "toy_shop_words",
    "write_annotated",
]
