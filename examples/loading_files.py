# %% [markdown]
# # Loading files without flowsim
#
# A run's file is plain HDF5 with named axes. xarray opens it as a tree of data sets, pandas takes
# tables from there, h5py needs no more than names. Only the first cell needs flowsim: it makes a
# file to look at.

# %%
import sys
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import xarray as xr

import flowsim as fs

QUICK = "--quick" in sys.argv
FOLDER = Path("loading_files")
FOLDER.mkdir(exist_ok=True)

x = [-0.5, -1 / 6, 1 / 6, 0.5]
fs.simulate(
    network={"width": 100 if QUICK else 1000, "antisymmetric": True},
    scaling={"gamma": 1.0, "gamma_prime": 0.0},
    x=x,
    y=[value**2 for value in x],
    record={"kernel": {"schedule": "log", "per_decade": 5}},
    output=FOLDER / "run.h5",
    overwrite=True,
).close()

# %% [markdown]
# h5py: groups, arrays, attributes.

# %%
with h5py.File(FOLDER / "run.h5") as file:
    print("groups:", *file)
    print("ended:", file.attrs["status"], "/", file.attrs["stop_reason"])
    for name in ("loss", "residual", "relative_change"):
        array = file["observables"][name]
        print(
            f"  {name:<16} {array.shape!s:<10} {array.attrs['long_name']} [{array.attrs['units']}]"
        )

# %% [markdown]
# xarray: axes by name. The groups have time axes of their own.

# %%
tree = xr.open_datatree(FOLDER / "run.h5", engine="h5netcdf")
change = tree["observables/relative_change"]
print("relative change at the end:", change.isel(time=-1, layer=0).item())
weights = tree["snapshots/input_weights"]
print("snapshots:", dict(weights.sizes))

# %% [markdown]
# pandas: a table with one row a time.

# %%
table = tree["observables"].to_dataset()[["loss", "dt", "n_passes"]].to_dataframe()
print(table.tail(3))
print(table["loss"].describe(percentiles=[0.5]))
table.to_csv(FOLDER / "loss.csv")

# %%
plt.rcParams |= {
    "font.family": "STIXGeneral", "mathtext.fontset": "stix",
    "xtick.direction": "in", "ytick.direction": "in", "xtick.top": True, "ytick.right": True,
}  # fmt: skip
figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.7), layout="constrained")
table["loss"].iloc[1:].plot(
    ax=left, logx=True, logy=True, xlabel=r"$\tau$", ylabel="$R$", color="#0072B2"
)
right.set_prop_cycle(color=plt.get_cmap("viridis")([0.0, 0.3, 0.6, 0.85]))
tree["kernel/eigenvalues"].isel(time_kernel=slice(1, None)).plot.line(
    ax=right, x="time_kernel", xscale="log", yscale="log", add_legend=False
)
right.set(xlabel=r"$\tau$", ylabel="eigenvalues of $K$", title="")
figure.savefig(FOLDER / "loaded.png", dpi=200)
print(FOLDER / "loaded.png")
