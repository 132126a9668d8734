"""The wallet that a sandbox has unless it is told of others.

ITS KEYS ARE WORTHLESS AND KNOWN TO EVERYBODY: the two first development keys of the Anvil and Hardhat
nodes, as in Derive's own examples. Who sends money to them loses it.
"""

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
WALLET_SECRET = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SESSION_KEY = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
SESSION_SECRET = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
SUBACCOUNT = 30769
FAR_SECOND = 4_102_444_800
"""1 January 2100, when the session key ends."""
