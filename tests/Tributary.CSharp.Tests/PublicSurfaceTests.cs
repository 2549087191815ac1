using System.Reflection;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

[TestFixture]
public sealed class PublicSurfaceTests
{
    private static readonly Assembly Facade = typeof(TributaryClient).Assembly;

    /// <summary>A type, what it is made of, and what it promises to be.</summary>
    private static IEnumerable<Type> Parts(Type type) =>
        type.HasElementType
            ? Parts(type.GetElementType()!)
            : type.IsGenericType ? type.GetGenericArguments().SelectMany(Parts).Prepend(type) : [type];

    private static IEnumerable<Type> Signature(Type type)
    {
        const BindingFlags Everything = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance
            | BindingFlags.Static | BindingFlags.DeclaredOnly;

        var methods = type.GetMembers(Everything).OfType<MethodBase>()
            .Where(method => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly)
            .ToList();

        var fields = type.GetFields(Everything).Where(field => field.IsPublic || field.IsFamily);

        return methods.SelectMany(method => method.GetParameters().Select(parameter => parameter.ParameterType))
            .Concat(methods.OfType<MethodInfo>().Select(method => method.ReturnType))
            .Concat(fields.Select(field => field.FieldType))
            .Concat(type.GetInterfaces())
            .Concat(type.GetCustomAttributesData().Select(attribute => attribute.AttributeType).Where(t => t.IsPublic))
            .Append(type.BaseType ?? typeof(object))
            .SelectMany(Parts)
            .Where(part => !part.IsGenericParameter);
    }

    private static bool IsAtHome(Type type) =>
        type.Assembly == Facade
        || type.Namespace is { } name && (name == "System" || name.StartsWith("System.") || name.StartsWith("Microsoft.Extensions."));

    [Test]
    public void Every_exported_signature_names_only_types_of_dotnet_and_of_the_facade()
    {
        var strangers =
            from type in Facade.GetExportedTypes()
            from part in Signature(type)
            where !IsAtHome(part)
            select $"{type.Name} shows {part}";

        Assert.That(Facade.GetExportedTypes(), Has.Member(typeof(TributaryClient)));
        Assert.That(strangers.Distinct(), Is.Empty);
    }

    private static string Name(Type type)
    {
        if (type.HasElementType)
            return Name(type.GetElementType()!) + (type.IsArray ? "[]" : "&");

        if (Nullable.GetUnderlyingType(type) is { } value)
            return Name(value) + "?";

        if (!type.IsGenericType)
            return type.IsGenericParameter ? type.Name : type.FullName!.Replace("Tributary.CSharp.", "");

        var arguments = string.Join(", ", type.GetGenericArguments().Select(Name));
        return $"{type.FullName![..type.FullName!.IndexOf('`')]}<{arguments}>";
    }

    private static readonly NullabilityInfoContext Nulls = new();

    private static string Mark(NullabilityInfo info) =>
        info.ReadState == NullabilityState.Nullable && !info.Type.IsValueType ? "?" : "";

    private static string Default(ParameterInfo parameter) =>
        parameter.HasDefaultValue ? $" = {parameter.DefaultValue ?? "default"}" : "";

    private static string Parameters(MethodBase method) =>
        string.Join(", ", method.GetParameters().Select(it =>
            $"{Name(it.ParameterType)}{Mark(Nulls.Create(it))} {it.Name}{Default(it)}"));

    private static IEnumerable<string> Members(Type type)
    {
        const BindingFlags Own = BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

        if (type.IsEnum)
            return Enum.GetNames(type).Select(name => $"    {name} = {Convert.ToInt64(Enum.Parse(type, name))}");

        static string Static(MethodBase? method) => method is { IsStatic: true } ? "static " : "";

        static string Setter(PropertyInfo property) =>
            property.SetMethod is not { IsPublic: true } set ? ""
            : set.ReturnParameter.GetRequiredCustomModifiers().Length > 0 ? " init;" : " set;";

        return new[]
        {
            type.GetConstructors(Own).Select(it => $"    new({Parameters(it)})"),
            type.GetFields(Own).Select(it => $"    const {Name(it.FieldType)} {it.Name} = {it.GetRawConstantValue()}"),
            type.GetProperties(Own).Select(it =>
                $"    {Static(it.GetMethod)}{Name(it.PropertyType)}{Mark(Nulls.Create(it))} {it.Name} {{ get;{Setter(it)} }}"),
            type.GetMethods(Own).Where(it => !it.IsSpecialName && !it.Name.StartsWith('<')).Select(it =>
                $"    {Static(it)}{Name(it.ReturnType)}{Mark(Nulls.Create(it.ReturnParameter))} {it.Name}({Parameters(it)})"),
        }.SelectMany(lines => lines.Order(StringComparer.Ordinal));
    }

    private static string Kind(Type type) =>
        type.IsEnum ? "enum" : type.IsInterface ? "interface" : type.IsValueType ? "struct"
        : type is { IsAbstract: true, IsSealed: true } ? "static class"
        : type.IsAbstract ? "abstract class" : type.IsSealed ? "sealed class" : "class";

    private static string Bases(Type type)
    {
        var above = type.BaseType is { } parent && parent != typeof(object) && !type.IsValueType ? [Name(parent)] : Array.Empty<string>();
        var all = type.IsEnum ? [] : above.Concat(type.GetInterfaces().Select(Name).Order(StringComparer.Ordinal)).ToArray();
        return all.Length == 0 ? "" : " : " + string.Join(", ", all);
    }

    /// <summary>Nobody changes what others build on without seeing it.</summary>
    [Test]
    public void The_public_surface_is_the_committed_one()
    {
        var text = string.Join(
            "\n",
            Facade.GetExportedTypes().OrderBy(type => type.FullName, StringComparer.Ordinal).Select(type =>
                string.Join("\n", Members(type).Prepend($"{Kind(type)} {Name(type)}{Bases(type)}")) + "\n"));

        var path = Path.Combine(Build.Root(), "src", "Tributary.CSharp", "PublicApi.txt");

        if (Environment.GetEnvironmentVariable("TRIBUTARY_GOLDEN") == "write")
            File.WriteAllText(path, text);

        Assert.That(
            text,
            Is.EqualTo(File.ReadAllText(path)),
            "What is public changed. If that is meant, run this test with TRIBUTARY_GOLDEN=write and commit src/Tributary.CSharp/PublicApi.txt.");
    }

    [Test]
    public void The_enumerations_say_what_the_engine_says()
    {
        static IEnumerable<string> Names<T>() where T : struct, Enum => Enum.GetNames<T>();
        static IEnumerable<string> Cases(Type union) =>
            union.GetProperties().Where(it => it.Name.StartsWith("Is")).Select(it => it.Name[2..]);

        Assert.Multiple(() =>
        {
            Assert.That(Names<GapCause>(), Is.EqualTo(Cases(typeof(Cause))));
            Assert.That(Names<GapStream>(), Is.EqualTo(Cases(typeof(Stream))));
            Assert.That(Names<MarketState>(), Is.EqualTo(Cases(typeof(MarketStatus))));
            Assert.That(Names<TradeSide>(), Is.EqualTo(Names<Side>()));
            Assert.That(Names<TradeSource>(), Is.EqualTo(Names<Source>()));
            Assert.That(Names<BookVerdict>(), Is.EqualTo(Names<Verdict>()));
            Assert.That(Names<BookDoubt>(), Is.EqualTo(Names<Doubt>()));
            Assert.That(Names<BookReason>(), Is.EqualTo(Names<Reason>()));
            Assert.That(Names<UnknownReason>(), Is.EqualTo(Cases(typeof(Ignorance))));
            Assert.That((int)BookSide.Bid, Is.EqualTo((int)Side.Buy));
            Assert.That((int)BookSide.Ask, Is.EqualTo((int)Side.Sell));
        });
    }
}
