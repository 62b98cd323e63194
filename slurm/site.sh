# Settings of your cluster, read by every script in this folder. An empty value leaves the choice to SLURM.
# Each setting can also come from the environment. No other file needs to be edited.

: "${PARTITION:=}"          # partition to submit to
: "${ACCOUNT:=}"            # account to charge
: "${GPU_OPTIONS:=}"        # how this cluster requests GPUs, such as --gpus-per-node=4 or --gres=gpu:4
: "${SETUP:=}"              # run before Python: module load cuda; source .venv/bin/activate
: "${PYTHON:=python}"       # the interpreter in which sinkablate is installed
: "${CONTAINER:=}"          # put in front of Python: apptainer exec --nv image.sif
: "${STAGE:=}"              # run once on every node before training: copy shards to the node's disk
: "${MAX_REQUEUES:=20}"     # how often a job returns to the queue before it gives up

# On compute nodes without a network, W&B writes offline runs when no API key is set; upload them with `wandb sync` from
# a login node. Pretrained weights must be in the cache or be given as a file.
# export HF_HUB_OFFLINE=1
