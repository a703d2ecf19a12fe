/** What the service tells of its models, and what of it a person chooses by. */
import { dollars, duration } from "./words.js";

const OWN = "images-proxy"; // the owner of names that stand for several providers' models
const DOES = { edit: "edits", inpaint: "masks" };

/** Can the model do this: generate, edit, inpaint (edit within a mask)? */
export const does = (model, operation) => model.operations.includes(operation);

/** What the model takes for an operation: {sizes, size, settings, images, price, seconds}; `size` is its own. */
export function takes(model, operation) {
  const sizes = (model?.parameters?.size?.enum ?? []).filter((size) => size !== "auto");
  const apart = model?.[operation] ?? { ...model, sizes };
  return {
    sizes: apart.sizes?.length > 1 ? apart.sizes : [],
    size: apart.sizes?.[0] ?? model?.parameters?.size?.default ?? "1024x1024",
    settings: apart.settings ?? {},
    images: apart.max_images ?? 1,
    price: apart.price ?? null,
    seconds: apart.seconds ?? null,
  };
}

/** Who would be asked for it, in this order. */
export const providersOf = (model, operation) => model[operation]?.providers ?? model.providers ?? [model.owned_by];

/** The heading under which a model is listed. */
export const groupOf = (model) => (model.owned_by === OWN ? "Names that apps ask for" : model.owned_by);

/** Price and time of one picture, as far as they are known: `$0.0025 · 0.3 s`. */
export function figures(model, operation) {
  const { price, seconds } = takes(model, operation);
  return [price === null ? "price unknown" : dollars(price), seconds === null ? "" : `≈ ${duration(seconds)}`]
    .filter(Boolean).join(" · ");
}

/** What it can do beside drawing from words: `edits, masks`. */
export const abilities = (model) => Object.keys(DOES).filter((name) => does(model, name)).map((name) => DOES[name]).join(", ");

/** Models whose name, id, provider or abilities contain every word of `text`. */
export function found(models, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return models.filter((model) => {
    const about = [model.id, model.name, groupOf(model), ...providersOf(model), abilities(model)].join(" ").toLowerCase();
    return words.every((word) => about.includes(word));
  });
}

/** The offered size nearest to a wanted one, by shape first and then by area, as the service itself chooses. */
export function nearest(sizes, wanted) {
  const sides = (size) => size.split("x").map(Number);
  const [width, height] = sides(wanted);
  const far = (size) => {
    const [w, h] = sides(size);
    return Math.round(Math.abs(Math.log((w * height) / (h * width))) * 100) * 1e6 + Math.abs(Math.log((w * h) / (width * height)));
  };
  return [...sizes].sort((one, other) => far(one) - far(other))[0];
}
