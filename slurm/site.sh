# Settings of your cluster, read by every script here. Empty means: as SLURM has it.
# Each may also come from the environment; nothing else needs to be edited.

: "${PARTITION:=}"          # partition to submit to
: "${ACCOUNT:=}"            # account to charge
: "${GPU_OPTIONS:=}"        # how GPUs are asked for here, such as --gpus-per-node=4 or --gres=gpu:4
: "${SETUP:=}"              # run before python: module load cuda; source .venv/bin/activate
: "${PYTHON:=python}"       # the interpreter in which sinkablate is installed
: "${CONTAINER:=}"          # put in front of python: apptainer exec --nv image.sif
: "${STAGE:=}"              # run once on every node before the training: copy shards to the node's disk
: "${MAX_REQUEUES:=20}"     # how often a job puts itself back into the queue

# Compute nodes without a network: W&B writes offline runs anyway when no key is set (`wandb sync` from a login node);
# pretrained weights must be in the cache or be given as a file.
# export HF_HUB_OFFLINE=1
