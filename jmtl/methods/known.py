"""Every method: a line here makes a file's constructor known by its name, in this order.

`jmtl.METHODS`, `jmtl.NAME`, `jmtl.make` and the command line follow; nothing else is imported here.
"""

# isort: off
from jmtl.methods.equal import equal as equal
from jmtl.methods.static import static as static
from jmtl.methods.uncertainty import uncertainty as uncertainty
from jmtl.methods.round_robin import round_robin as round_robin
from jmtl.methods.random import random as random
from jmtl.methods.dwa import dwa as dwa
from jmtl.methods.geometric import geometric as geometric
from jmtl.methods.scale_invariant import scale_invariant as scale_invariant
from jmtl.methods.imtl_l import imtl_l as imtl_l
from jmtl.methods.difficulty import difficulty as difficulty
from jmtl.methods.stch import stch as stch
from jmtl.methods.famo import famo as famo
from jmtl.methods.go4align import go4align as go4align
from jmtl.methods.pcgrad import pcgrad as pcgrad
from jmtl.methods.mgda import mgda as mgda
from jmtl.methods.gradvac import gradvac as gradvac
from jmtl.methods.imtl_g import imtl_g as imtl_g
from jmtl.methods.cagrad import cagrad as cagrad
from jmtl.methods.nash import nash as nash
from jmtl.methods.fairgrad import fairgrad as fairgrad
from jmtl.methods.aligned import aligned as aligned
from jmtl.methods.upgrad import upgrad as upgrad
from jmtl.methods.dualproj import dualproj as dualproj
from jmtl.methods.config import config as config
from jmtl.methods.gradnorm import gradnorm as gradnorm
from jmtl.methods.graddrop import graddrop as graddrop
from jmtl.methods.moco import moco as moco
from jmtl.methods.db_mtl import db_mtl as db_mtl
from jmtl.methods.excess import excess as excess
from jmtl.methods.sdmgrad import sdmgrad as sdmgrad
from jmtl.methods.modo import modo as modo
from jmtl.methods.trimmed_mean import trimmed_mean as trimmed_mean
from jmtl.methods.krum import krum as krum
