namespace Tributary.CSharp.Tests;

/// <summary>Where the builds of the repository lie.</summary>
internal static class Build
{
    public static string Root()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);

        while (!File.Exists(Path.Combine(folder.FullName, "Tributary.sln")))
            folder = folder.Parent!;

        return folder.FullName;
    }

    /// <summary>A program's build, of the same configuration as these tests.</summary>
    public static string Of(string folder, string project)
    {
        var built = Path.GetRelativePath(Root(), AppContext.BaseDirectory).Split(Path.DirectorySeparatorChar);
        return Path.Combine([Root(), folder, project, .. built[2..5], project + ".dll"]);
    }
}
